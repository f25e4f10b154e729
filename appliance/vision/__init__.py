"""From a frame to vectors: letterbox, quantise, decode, align, assess, embed. No device, no I/O."""
