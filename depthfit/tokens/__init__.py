"""The pose tokenizer: a VQ-VAE whose discrete codes are the unknowns of a fit."""
