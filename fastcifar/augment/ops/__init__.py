"""Operations on batches of training images after the fused kernel: one file each."""
