"""Models that draw images: pixel by pixel, or out of noise by diffusion."""
