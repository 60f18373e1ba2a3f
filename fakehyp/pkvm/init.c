/* SPDX-License-Identifier: BSD-2-Clause */
/* Boot: the host owns everything but the carve-out that holds its own stage-2 tables. */
#include "fakehyp/pkvm/internal.h"
#include "fakehyp/string.h"

size_t hyp_state_size(void)
{
    return sizeof(struct hyp);
}

static bool memory_ok(const struct hyp_config *config)
{
    uint64_t limit = UINT64_C(1) << config->pa_bits, end = 0;

    if (config->nr_memory == 0 || config->nr_memory > HYP_MAX_REGIONS)
        return false;
    for (unsigned i = 0; i < config->nr_memory; i++) {
        const struct hyp_memory_region *region = &config->memory[i];
        uint64_t pfn = region->base >> HYP_PAGE_SHIFT, nr = region->size >> HYP_PAGE_SHIFT;

        if ((region->base | region->size) % HYP_PAGE_SIZE != 0 || region->size == 0)
            return false;
        if (region->base < end || region->base >= limit || region->size > limit - region->base)
            return false;
        /* Address 0 ends a list of pages, so no page that can be in one may be there. */
        if (region->base == 0 && !region->nomap)
            return false;
        end = region->base + region->size;
        if (!region->nomap && (pfn < config->vmemmap_base_pfn || pfn - config->vmemmap_base_pfn > config->vmemmap_nr ||
                               nr > config->vmemmap_nr - (pfn - config->vmemmap_base_pfn)))
            return false;
    }
    return true;
}

static bool config_ok(const struct hyp_config *config)
{
    const struct hyp_platform *plat = &config->plat;

    if (plat->physvirt_offset % HYP_PAGE_SIZE || !plat->zero_page || !plat->tlbi || !plat->yield || !plat->panic)
        return false;
    if (!config->memory || !config->vmemmap || config->pa_bits < 32 || config->pa_bits > 48)
        return false;
    if (config->nr_cpus == 0 || config->nr_cpus > HYP_MAX_CPUS)
        return false;
    return memory_ok(config);
}

/* Concatenated tables are aligned to their size. */
static uint64_t pgd_pfn(const struct hyp_config *config)
{
    uint64_t nr = hyp_s2_pgd_pages(config->pa_bits);

    return (config->pool_pfn + nr - 1) / nr * nr;
}

static bool pool_ok(const struct hyp *hyp, const struct hyp_config *config)
{
    uint64_t need = hyp_host_tables(config->memory, config->nr_memory, config->pa_bits);

    if (config->pool_pfn >= UINT64_C(1) << (config->pa_bits - HYP_PAGE_SHIFT))
        return false;
    need += pgd_pfn(config) - config->pool_pfn;
    return config->pool_nr >= need && hyp_check_allowed_range(hyp, config->pool_pfn, config->pool_nr) == 0;
}

static bool text_ok(const struct hyp *hyp, const struct hyp_config *config)
{
    uint64_t pool_end = config->pool_pfn + config->pool_nr;

    if (config->text_nr == 0)
        return true;
    if (hyp_check_allowed_range(hyp, config->text_pfn, config->text_nr) != 0)
        return false;
    return config->text_pfn >= pool_end || config->text_pfn + config->text_nr <= config->pool_pfn;
}

/* As a donation by the host, but for the TLB maintenance: nothing runs yet. */
static void take_pool(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    int ret =
        s2_annotate(&hyp->host, hyp_pfn_to_phys(pfn), hyp_pfn_to_phys(nr), S2_TYPE_DONATION, s2_hyp_annotation(), NULL);

    hyp_warn_on(hyp, ret < 0, "boot: pool too small in spite of its check");
    hyp_set_hyp_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
}

/* Permissions that are not those of all memory: pages, lest a block speak for its neighbours. */
static void take_text(struct hyp *hyp, uint64_t pfn, uint64_t nr)
{
    uint64_t phys = hyp_pfn_to_phys(pfn);
    int ret = s2_map(&hyp->host, phys, hyp_pfn_to_phys(nr), phys, s2_host_text_attr(), true, NULL);

    hyp_warn_on(hyp, ret < 0, "boot: pool too small in spite of its check");
    hyp_set_hyp_state(hyp, pfn, nr, PKVM_PAGE_OWNED);
    hyp_set_host_state(hyp, pfn, nr, PKVM_PAGE_NOPAGE);
}

int hyp_init(struct hyp *hyp, const struct hyp_config *config)
{
    uint64_t nr_pgd, pgd;

    if (!config_ok(config))
        return -HYP_EINVAL;
    memset(hyp, 0, sizeof(*hyp));
    hyp->mm = (struct hyp_mm){.plat = config->plat,
                              .vmemmap = config->vmemmap,
                              .base_pfn = config->vmemmap_base_pfn,
                              .nr_pfns = config->vmemmap_nr};
    memcpy(hyp->memory, config->memory, config->nr_memory * sizeof(hyp->memory[0]));
    hyp->nr_memory = config->nr_memory;
    hyp->pa_bits = config->pa_bits;
    hyp->nr_cpus = config->nr_cpus;
    hyp->text_pfn = config->text_pfn;
    hyp->text_nr = config->text_nr;
    if (!pool_ok(hyp, config) || !text_ok(hyp, config))
        return -HYP_EINVAL;

    nr_pgd = hyp_s2_pgd_pages(config->pa_bits);
    pgd = hyp_pfn_to_phys(pgd_pfn(config));
    for (uint64_t i = 0; i < nr_pgd; i++)
        hyp_zero_page(&hyp->mm, pgd + i * HYP_PAGE_SIZE);
    s2_init(&hyp->host, &hyp->mm, &hyp->host_pool, pgd, config->pa_bits, 0);
    hyp->host_pool.fresh = pgd + nr_pgd * HYP_PAGE_SIZE;
    hyp->host_pool.fresh_end = hyp_pfn_to_phys(config->pool_pfn + config->pool_nr);
    take_pool(hyp, config->pool_pfn, config->pool_nr);
    if (config->text_nr)
        take_text(hyp, config->text_pfn, config->text_nr);
    return 0;
}
