"""What HMR2.0 and TokenHMR share: crop, ViT-H backbone, cross-attention decoder, camera, files.

Goel et al., "Humans in 4D" (ICCV 2023); Dwivedi et al., "TokenHMR" (CVPR 2024). Layers and state-dict keys
are theirs, so that their released files load.
"""
