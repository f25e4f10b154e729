// SPDX-License-Identifier: GPL-2.0
/*
 * The words that drivers/dma-buf/dma-heap.c lacks to be a module: the kernel builds it in, or not at
 * all. It has no exit: once loaded, it stays.
 */
#include <linux/module.h>

MODULE_DESCRIPTION("DMA-BUF heaps");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
