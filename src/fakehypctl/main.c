/* SPDX-License-Identifier: BSD-2-Clause */
#include "src/fakehypctl/ctl.h"

int main(int argc, char **argv)
{
    return ctl_main(argc, argv);
}
