"""Operations and bytes of one Levenberg-Marquardt iteration for one person, and the least time they take.

``python -m depthfit.bench.counts`` prints the table. A multiplication with its addition counts as two
operations. Bytes are the fewest that must pass through the device's memory: each input read once, each output
written once, 4 bytes a number; what is the same for everybody (body, weights) stays in the cache. Two figures
are of this implementation and not of the problem: the columns of the surface rows, written and read once, and
the tokens' directions, which are kept for the steps until the next chart.

The least time of a part is the larger of operations over the rate of the unit that does them and bytes over
the memory's rate. :data:`H100` holds rates measured on one H100 (80 GB): copy 2.99 TB/s; 4096^3 products at
51.5 TFLOP/s in float32; 8192^3 ones at 784 in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass

from depthfit.joints import KEYPOINTS, NUM_BODY_JOINTS, NUM_JOINTS
from depthfit.tokens.vqvae import CODE_DIM, DECODER_LENGTHS, NUM_TOKENS, OFFICIAL_WIDTH

FLOAT = 4
TURNS = 3 * NUM_BODY_JOINTS
OPEN_WIDTH = 256
"""Width of the tokenizer that is shipped."""


@dataclass(frozen=True)
class Size:
    """Of a problem.

    Attributes:
        samples: Depth rows; pairs: Contour rows.
        betas, clothes, field: Unknowns beside root, body pose, bearing and distance.
        bones: Joints that move a vertex, mean.
    """

    samples: int = 1000
    pairs: int = 480
    betas: int = 20
    clothes: int = 25
    field: int = 20
    bones: float = 1.6

    @property
    def unknowns(self) -> int:
        """Of a person."""
        return 3 + TURNS + self.betas + 3 + self.clothes + self.field

    @property
    def columns(self) -> int:
        """Those, the image's two, and the residual."""
        return self.unknowns + 3

    @property
    def rows(self) -> int:
        return self.samples + self.pairs + 2 * len(KEYPOINTS)

    @property
    def vertices(self) -> int:
        """That are skinned: three a depth row, one a contour row."""
        return 3 * self.samples + self.pairs


@dataclass(frozen=True)
class Rates:
    """Of a device: operations a second in float32 and bfloat16, bytes a second."""

    float32: float
    bfloat16: float
    bytes: float


H100 = Rates(51.5e12, 784e12, 2.99e12)


@dataclass(frozen=True)
class Part:
    """Of an iteration, for one person."""

    name: str
    operations: float
    bytes: float
    bfloat16: bool = False

    def least(self, rates: Rates) -> float:
        """s."""
        rate = rates.bfloat16 if self.bfloat16 else rates.float32
        return max(self.operations / rate, self.bytes / rates.bytes)


def kinematics() -> Part:
    """A 3 x 3 product and a turned bone for each joint but the root."""
    operations = (NUM_JOINTS - 1) * (2 * 27 + 2 * 9 + 3)
    return Part("forward kinematics", operations, FLOAT * (9 * NUM_JOINTS + 15 * NUM_JOINTS))


def skinning(size: Size) -> Part:
    """Shape the sampled vertices and move them by their bones."""
    each = 2 * 3 * size.betas + size.bones * 2 * 12
    return Part("skin the sampled vertices", size.vertices * each, size.vertices * (8 + FLOAT * 6))


def evidence_bytes(size: Size) -> float:
    """Of the rows: corner indices, pixel, reading, sigma, weight, bases."""
    depth = 3 * 8 + FLOAT * (2 + 3 + size.field + size.clothes)
    contour = 8 + FLOAT * (4 + 2 + size.clothes)
    return size.samples * depth + size.pairs * contour


def residuals(size: Size) -> Part:
    """Rays against planes (about 120 operations), projections (about 40), robust weights and the bases."""
    depth, contour = 120 + 2 * (size.field + size.clothes), 40 + 2 * size.clothes
    operations = size.samples * depth + size.pairs * contour
    return Part("residuals and cost", operations, evidence_bytes(size) + size.vertices * FLOAT * 3)


def columns(size: Size) -> Part:
    """Of the surface rows: blends by joint, what hangs below each joint, its turn, shapes and the rest."""
    by_joint = 3 * 2 * 4 + 2 * 12 + 2 * 3 * 5 + 9 + 2 * 9
    below = 4 * 2 * NUM_JOINTS
    surface = size.samples + size.pairs
    operations = surface * (NUM_JOINTS * (by_joint + below) + size.betas * 2 * (9 + 3 * NUM_JOINTS))
    written = surface * size.columns * FLOAT
    return Part("columns of the surface rows", operations, evidence_bytes(size) + written)


def products(rows: int, size: Size) -> float:
    """Operations of J^T J with the residual as a column, both halves."""
    return 2 * rows * size.columns**2


def normal(size: Size) -> Part:
    """J^T J of all rows."""
    read, written = size.rows * size.columns * FLOAT, size.columns**2 * FLOAT
    return Part("J^T J and J^T r", products(size.rows, size), read + written)


def arrow(size: Size) -> Part:
    """Cholesky factor, two substitutions of three right-hand sides, and the model's curvature."""
    p = size.unknowns
    operations = p**3 / 3 + 2 * 2 * 3 * p**2 + 2 * p**2
    return Part("solve the arrow system", operations, 4 * p**2 * FLOAT)


def decoder_operations(width: int) -> float:
    """One pass through the tokenizer's decoder, products alone."""
    last = DECODER_LENGTHS[-1]
    entry = NUM_TOKENS * 3 * CODE_DIM * width
    resized = sum(DECODER_LENGTHS) * 3 * width**2
    blocks = 2 * last * (3 + 1) * width**2
    exits = last * 3 * (width**2 + width * 6)
    return 2 * (entry + resized + blocks + exits)


def chart(width: int) -> Part:
    """Forward once, 63 cotangents back through the same products, and their products with the prior's
    covariance (flat prior: a scale), D S D^T, and two sets of 63 directions kept."""
    latents = NUM_TOKENS * CODE_DIM
    operations = (1 + TURNS) * decoder_operations(width) + 3 * 2 * TURNS**2 * latents
    return Part(f"chart of the tokens, width {width}", operations, 2 * TURNS * latents * FLOAT, bfloat16=True)


def token_step(width: int) -> Part:
    """Steps along the kept directions, and the decoder for the new pose."""
    latents = NUM_TOKENS * CODE_DIM
    operations = decoder_operations(width) + 4 * 2 * TURNS * latents
    return Part(f"step of the tokens, width {width}", operations, 4 * TURNS * latents * FLOAT)


def iteration(size: Size) -> list[Part]:
    """What every iteration does, in rotations; the trial's cost counts beside the linearisation."""
    twice = [kinematics(), skinning(size), residuals(size)]
    trial = [Part(f"{p.name}, trial", p.operations, p.bytes) for p in twice]
    return [*twice, columns(size), normal(size), arrow(size), *trial]


def table(size: Size, rates: Rates) -> str:
    """Markdown."""
    lines = ["| part | MFLOP | kB | least us |", "|---|---|---|---|"]

    def line(name: str, operations: float, number: float, least: float) -> str:
        return f"| {name} | {operations / 1e6:.3g} | {number / 1e3:.3g} | {least * 1e6:.2f} |"

    parts = iteration(size)
    lines += [line(p.name, p.operations, p.bytes, p.least(rates)) for p in parts]
    sums = sum(p.operations for p in parts), sum(p.bytes for p in parts), sum(p.least(rates) for p in parts)
    lines.append(line("**an iteration in rotations**", *sums))
    for width in (OPEN_WIDTH, OFFICIAL_WIDTH):
        lines += [
            line(p.name, p.operations, p.bytes, p.least(rates)) for p in (chart(width), token_step(width))
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Size(), H100))
