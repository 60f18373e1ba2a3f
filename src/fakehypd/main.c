/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypd/daemon.h"

int main(int argc, char **argv)
{
    return fakehypd_main(argc, argv);
}
