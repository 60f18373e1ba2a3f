/* SPDX-License-Identifier: BSD-2-Clause */
#include "fakehyp/stage2/pool.h"
#include "fakehyp/string.h"

_Noreturn void hyp_panic(const struct hyp_mm *mm, const char *what)
{
    mm->plat.panic(mm->plat.ctx, what);
    for (;;) {
    }
}

void hyp_memcache_push(const struct hyp_mm *mm, struct hyp_memcache *mc, uint64_t phys)
{
    *(uint64_t *)hyp_virt(mm, phys) = mc->head;
    mc->head = phys;
    mc->nr_pages++;
}

uint64_t hyp_memcache_pop(const struct hyp_mm *mm, struct hyp_memcache *mc)
{
    uint64_t phys = mc->head;

    if (mc->nr_pages == 0)
        return 0;
    mc->head = *(const uint64_t *)hyp_virt(mm, phys);
    mc->nr_pages--;
    return phys;
}

void hyp_zero_page(const struct hyp_mm *mm, uint64_t phys)
{
    memset(hyp_virt(mm, phys), 0, HYP_PAGE_SIZE);
}

uint64_t hyp_pool_alloc(const struct hyp_mm *mm, struct hyp_pool *pool, struct hyp_memcache *mc)
{
    uint64_t phys = hyp_memcache_pop(mm, &pool->free);

    if (phys) {
        *(uint64_t *)hyp_virt(mm, phys) = 0;
    } else {
        if (pool->fresh < pool->fresh_end) {
            phys = pool->fresh;
            pool->fresh += HYP_PAGE_SIZE;
        } else if (mc) {
            phys = hyp_memcache_pop(mm, mc);
        }
        if (!phys)
            return 0;
        hyp_zero_page(mm, phys);
    }
    hyp_page_of(mm, phys >> HYP_PAGE_SHIFT)->refcount = 1;
    return phys;
}

void hyp_pool_free(const struct hyp_mm *mm, struct hyp_pool *pool, uint64_t phys)
{
    hyp_zero_page(mm, phys);
    hyp_page_of(mm, phys >> HYP_PAGE_SHIFT)->refcount = 0;
    hyp_memcache_push(mm, &pool->free, phys);
}
