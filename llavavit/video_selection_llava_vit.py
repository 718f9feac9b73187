# SPDX-License-Identifier: Apache-2.0
"""Which patches of a clip matter: energies from a codec's motion and residual, or from differences, and the choice by score.

Source: the selection of OneVision-Encoder, arXiv 2602.08683.

1. The codec is x264 on luma at the model's own resolution and crop, whatever codec the file came in: only then do the
   same pictures give the same patches. Stream vectors would come nearly free of charge, but only from H.264 and MPEG-4,
   and from whichever frames the file's encoder chose to refer to: of what a moving object changes before a panning
   camera they find 46 to 73 %, where this finds 99 %.
2. Each sampled frame is predicted from the source frame before it. The two are encoded as a key frame and a P-frame, so
   that a clip costs the same however long it is, and no sampled frame is itself a key frame, which would have no energy.
3. FFmpeg hands out vectors but no residual. It is decoded frame minus prediction, and the prediction is made here from
   the decoded reference and the vectors, in H.264's own quarter-pixel arithmetic.
4. What a moving camera brings into view at the border has no energy: like the median of the vectors, it tells of the
   camera. It would take most of a small budget in every panned clip.
5. What every source's own codec adds must not decide: luma is smoothed a little, and neither vectors within half a pixel
   of the camera's count, nor residuals of a few levels, nor scores below those of a still clip.
6. A still clip keeps four frames whole. Patches that clearly move come before them: with the usual budget of an eighth of
   the patches both always fit, with a small one the whole frames would push out all that moves.

Shape letters: T frames, S x S pixels of the model's crop, p patch size, h = w = S/p, L = T*h*w patches, N selected.
"""

from collections import deque
from fractions import Fraction
from functools import lru_cache

import numpy as np
from PIL import Image

try:
    import av
except ImportError:
    av = None


ENCODER = "libx264"
ENCODER_OPTIONS = {
    "preset": "veryfast",
    "crf": "23",
    # One reference, no B-frames, no key frames of its own. No weights and no deblocking: what the decoder adds to a block
    # is then exactly the prediction made here. One thread: x264's output depends on their number.
    # A key frame four times finer than the rest: else a P-frame's residual repairs it everywhere and drowns what moves.
    # Without arithmetic coding it takes half the time: the packets' size does not matter.
    "x264-params": "keyint=infinite:scenecut=0:bframes=0:ref=1:weightp=0:no-deblock=1:partitions=p8x8,i4x4:ipratio=4"
    ":cabac=0:rc-lookahead=0:sync-lookahead=0:mbtree=0:threads=1",
}
KEY_FRAME, PREDICTED_FRAME = 1, 2  # FFmpeg's AV_PICTURE_TYPE_I and _P
MACROBLOCK = 16
CELL = 8  # pixels: the smallest block that gets a vector of its own
SMOOTHING = (
    1,
    4,
    6,
    4,
    1,
)  # a Gaussian of one pixel's deviation: more than grain and dither need, less than what moves
HALF_PIXEL = (1, -5, 20, 20, -5, 1)  # H.264's filter
GRAIN = 3  # levels of 255: residuals no larger are the source's own coding noise
JITTER = (
    0.5  # pixels: vectors that differ less from the camera's are rounding, and would count in full where nothing moves
)
MARGIN = CELL + 4  # pixels around a reference: a block that lies further out is all border, half pixels included

STILL_FRAMES = 4
STILL_BELOW, FLAT_BELOW, FLAT_SPREAD = 2.0, 4.0, 0.15  # mean energies of patches on a scale of 255


# --- the choice of patches --------------------------------------------------------------------------------------------


def sample_indices(num_source, num_frames):
    """Which of `num_source` frames are sampled: (T,) int64, evenly from first to last, each once at most."""
    if num_source <= num_frames:
        return np.arange(num_source, dtype=np.int64)
    return np.linspace(0, num_source - 1, num_frames).astype(np.int64)


def patch_positions(indices, num_frames, side, num_places):
    """(N, 3) int64 of (t, row, column) for patch indices (N,).

    The T = `num_frames` sampled frames sit at linspace(0, num_places - 1, T), rounded down.
    """
    frames = np.linspace(0, num_places - 1, num_frames).astype(np.int64)
    frame, place = np.divmod(indices, side * side)
    return np.stack((frames[frame], place // side, place % side), axis=-1)


def patch_scores(energy, patch_size):
    """Sum of the energy over each patch: (S, S) in [0, 1] -> (h, w) float64."""
    side = energy.shape[0] // patch_size
    return energy.reshape(side, patch_size, side, patch_size).sum(axis=(1, 3), dtype=np.float64)


def select_patches(scores, patch_size, budget, keep_first_frame=False):
    """The patches to keep: those with the highest scores of all frames together, ties to the earlier one.

    Args:
        scores: (T, h, w), what `patch_scores` gives for each frame.
        patch_size: p, pixels.
        budget: How many patches to keep; all, where there are fewer.
        keep_first_frame: Every patch of the first frame comes first.

    Returns:
        (min(budget, L),) int64, ascending: by frame, row, column.
    """
    per_frame = scores[0].size
    flat = scores.reshape(-1)
    means = flat * (255.0 / patch_size**2)
    # What is less than a still clip has is noise of the source's own codec, and no reason to prefer a patch.
    by_score = np.argsort(-np.where(means < STILL_BELOW, 0, means), kind="stable")
    groups = [thin(np.arange(per_frame), budget)] if keep_first_frame else []
    if is_still(means):
        frames = np.unique(np.linspace(0, len(scores) - 1, STILL_FRAMES).astype(np.int64))
        whole = thin((frames[:, None] * per_frame + np.arange(per_frame)).reshape(-1), budget)
        groups += [by_score[means[by_score] >= FLAT_BELOW], whole[scattered(len(whole))]]
    kept = np.zeros(flat.size, dtype=bool)
    for group in [*groups, by_score]:
        kept[group[~kept[group]][: max(0, budget - int(kept.sum()))]] = True
    return np.flatnonzero(kept)


def thin(indices, count):
    """`count` of the indices, evenly spread over them; all, where there are fewer."""
    if len(indices) <= count:
        return indices
    return indices[np.linspace(0, len(indices) - 1, count).astype(np.int64)]


def scattered(count):
    """range(count) so ordered that its first so many are spread over all of it, however many: the binary digits reversed.

    Four of eight are 0 4 2 6; the fifth joins them without moving the others, as it would if they were evenly spread anew.
    """
    numbers, reversed_digits = np.arange(count), np.zeros(count, dtype=np.int64)
    for digit in range(count.bit_length()):
        reversed_digits = reversed_digits * 2 + (numbers >> digit & 1)
    return np.argsort(reversed_digits, kind="stable")


def is_still(means):
    """Whether nothing moves in a clip, by the mean energies of its patches, 0 to 255."""
    high, middle = np.percentile(means, (95, 50))
    return bool(high < STILL_BELOW or (high < FLAT_BELOW and (high - middle) / high < FLAT_SPREAD))


# --- energies ---------------------------------------------------------------------------------------------------------


def luma(pixels):
    """(S, S, 3) uint8 RGB -> (S, S) uint8, by ITU-R 601, without what lossy sources and palettes add between the pixels."""
    grey = np.pad(np.asarray(Image.fromarray(pixels).convert("L")), 2, mode="edge").astype(np.uint16)
    smooth = filtered(filtered(grey, 0, SMOOTHING), 1, SMOOTHING)  # at most 255 * 256: just within 16 bits
    return (smooth + 128 >> 8).astype(np.uint8)


def filtered(samples, axis, taps):
    """A symmetric filter along an axis of (H, W), in the samples' own integers, undivided; n taps cost n - 1 samples."""
    length = samples.shape[axis] - len(taps) + 1
    parts = [
        samples[start : start + length] if axis == 0 else samples[:, start : start + length]
        for start in range(len(taps))
    ]
    half = len(taps) // 2
    total = parts[half] * taps[half] if len(taps) % 2 else 0
    for first, last, tap in zip(parts, reversed(parts), taps[:half]):
        total = total + (first + last) * tap
    return total


def normalised(magnitudes, floor):
    """Magnitudes divided by their 95th percentile (at least `floor`), at most 1: float32."""
    scale = max(float(np.percentile(magnitudes, 95)), floor)
    return np.minimum(magnitudes.astype(np.float32) / np.float32(scale), np.float32(1))


def residual_energy(current, prediction):
    """|current - prediction| of luma, normalised: (S, S) uint8 twice -> (S, S) float32."""
    residual = np.maximum(current, prediction) - np.minimum(current, prediction)
    levels = np.arange(256) * (np.arange(256) > GRAIN)
    # The percentile and the quotients by level: sorting the pixels would take longer than all else here.
    rank, part = divmod(0.95 * (residual.size - 1), 1)
    counted = np.cumsum(np.bincount(residual.reshape(-1), minlength=256))
    low, high = levels[np.searchsorted(counted, (rank, rank + 1), side="right").clip(max=255)]
    scale = max(low + part * (high - low), 1.0)
    return np.minimum(levels.astype(np.float32) / np.float32(scale), np.float32(1))[residual]


class DifferenceEnergy:
    """Energy of a frame as what differs from the frame before it. Needs no codec."""

    def add(self, previous, current):
        """(S, S) uint8 luma of a sampled frame and of the source frame before it -> energies that are ready, (S, S)."""
        return [residual_energy(current, previous)]

    def finish(self):
        return []


class CodecEnergy:
    """Energy of a frame as the motion and residual that x264 needs to make it from the frame before it.

    The codec may hold pictures back: energies come in order, from `add` or at last from `finish`.

    Raises:
        ValueError: PyAV is missing, or was built without x264.
    """

    def __init__(self, size):
        if av is None:
            raise ValueError("codec selection needs PyAV: pip install av; or call with selection='difference'")
        if ENCODER not in av.codecs_available:
            raise ValueError(
                f"codec selection needs PyAV with {ENCODER}, which this build lacks; call with selection='difference'"
            )
        self.size = size
        self.coded_size = -(-size // MACROBLOCK) * MACROBLOCK
        self.encoder = self._make_encoder()
        self.decoder = av.CodecContext.create("h264", "r")
        self.decoder.options = {"flags2": "+export_mvs"}
        self.decoder.thread_count = 1
        self.pictures = 0
        self.decoded = deque()

    def _make_encoder(self):
        encoder = av.CodecContext.create(ENCODER, "w")
        encoder.width = encoder.height = self.coded_size
        encoder.pix_fmt = "gray"
        encoder.time_base = Fraction(1, 25)
        encoder.options = ENCODER_OPTIONS
        return encoder

    def add(self, previous, current):
        """(S, S) uint8 luma of a sampled frame and of the source frame before it -> energies that are ready, (S, S)."""
        for plane, kind in ((previous, KEY_FRAME), (current, PREDICTED_FRAME)):
            self._decode(self.encoder.encode(self._picture(plane, kind)))
        return self._ready()

    def finish(self):
        if self.pictures:
            self._decode([*self.encoder.encode(None), None])
        return self._ready()

    def _picture(self, plane, kind):
        pad = self.coded_size - self.size
        picture = av.VideoFrame.from_ndarray(np.pad(plane, ((0, pad), (0, pad)), mode="edge"), "gray")
        picture.pts, picture.pict_type = self.pictures, kind
        self.pictures += 1
        return picture

    def _decode(self, packets):
        for packet in packets:
            self.decoded.extend(self.decoder.decode(packet))

    def _ready(self):
        energies = []
        while len(self.decoded) >= 2:
            reference, frame = self.decoded.popleft(), self.decoded.popleft()
            vectors = frame.side_data.get("MOTION_VECTORS")
            vectors = None if vectors is None else vectors.to_ndarray()
            energies.append(self._energy(y_plane(reference), y_plane(frame), vectors))
        return energies

    def _energy(self, reference, current, vectors):
        motion, has_vector = vector_field(vectors, self.coded_size)
        camera = (
            np.rint(np.median(motion[has_vector], axis=0)).astype(np.int32)
            if has_vector.any()
            else np.zeros(2, np.int32)
        )
        # Blocks coded anew have no vector: no motion, and their residual is against what the camera's would bring.
        motion = np.where(has_vector[..., None], motion, camera)
        prediction = predict(reference, motion)
        x, y = (seen_before(self.size, self.coded_size, shift) for shift in camera)
        relative = (motion - camera) / 4 * (y[::CELL, None] & x[None, ::CELL])[..., None]  # quarter pixels -> pixels
        cells = slice(0, -(-self.size // CELL))
        magnitude = np.hypot(relative[cells, cells, 0], relative[cells, cells, 1])
        motion_energy = spread(normalised(np.where(magnitude > JITTER, magnitude, 0), 1e-6))
        inside = slice(0, self.size)
        residual = np.where(y[inside, None] & x[None, inside], current[inside, inside], prediction[inside, inside])
        return (motion_energy[inside, inside] + residual_energy(residual, prediction[inside, inside])) / 2


def seen_before(size, coded_size, shift):
    """Where along an axis the camera's motion, in quarter pixels, leads to what the frame before shows: (coded_size,) bool.

    By cells: one that the camera brings into view in part has a vector and a residual that tell of nothing else.
    """
    source = np.arange(coded_size) + shift / 4
    seen = (source > -1) & (source < size)
    return seen.reshape(-1, CELL).all(axis=1).repeat(CELL)


def y_plane(frame):
    """A decoded grey picture: (height, width) uint8, a copy."""
    plane = frame.planes[0]
    return np.frombuffer(plane, dtype=np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width].copy()


def vector_field(vectors, size):
    """FFmpeg's list of motion vectors as a field of cells.

    Args:
        vectors: Structured array of FFmpeg's AVMotionVector, or None for a picture without.
        size: Side of the coded picture, pixels.

    Returns:
        (size/8, size/8, 2) int32 of (x, y) in quarter pixels, from a cell to where it came from; and (size/8, size/8)
        bool, which cells have a vector.
    """
    cells = size // CELL
    field, known = np.zeros((cells, cells, 2), dtype=np.int32), np.zeros((cells, cells), dtype=bool)
    if vectors is None:
        return field, known
    for width, height in ((16, 16), (16, 8), (8, 16), (8, 8)):
        chosen = vectors[(vectors["w"] == width) & (vectors["h"] == height)]
        left = (chosen["dst_x"].astype(np.int32) - width // 2) // CELL
        top = (chosen["dst_y"].astype(np.int32) - height // 2) // CELL
        for down in range(height // CELL):
            for right in range(width // CELL):
                field[top + down, left + right, 0] = chosen["motion_x"]
                field[top + down, left + right, 1] = chosen["motion_y"]
                known[top + down, left + right] = True
    return field, known


def spread(cells):
    """A field of cells as one of pixels: (n, n) -> (8n, 8n)."""
    return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)


# --- H.264's prediction -----------------------------------------------------------------------------------------------


def half_pixel_planes(reference):
    """The reference (S, S) at whole pixels, half a pixel right, half a pixel down, and both: (4, n, n) uint8, n = S + 2 * MARGIN."""
    wider = np.pad(reference, (MARGIN + 2, MARGIN + 3), mode="edge").astype(np.int16)
    right, down = (
        filtered(wider, 1, HALF_PIXEL),
        filtered(wider, 0, HALF_PIXEL),
    )  # within -2550..10710: half the bytes of the second pass
    both = filtered(right.astype(np.int32), 0, HALF_PIXEL)
    halves = (right[2:-3] + 16 >> 5, down[:, 2:-3] + 16 >> 5, both + 512 >> 10)
    return np.stack((wider[2:-3, 2:-3], *halves)).clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def quarter_pixel_table():
    """For each quarter position 4 * y + x: (16, 2, 3) of the two samples to average, each (plane, down, right)."""
    whole, right, down, both = range(4)
    pairs = [
        [(whole, 0, 0), (whole, 0, 0)], [(whole, 0, 0), (right, 0, 0)], [(right, 0, 0), (right, 0, 0)], [(right, 0, 0), (whole, 0, 1)],
        [(whole, 0, 0), (down, 0, 0)], [(right, 0, 0), (down, 0, 0)], [(right, 0, 0), (both, 0, 0)], [(right, 0, 0), (down, 0, 1)],
        [(down, 0, 0), (down, 0, 0)], [(down, 0, 0), (both, 0, 0)], [(both, 0, 0), (both, 0, 0)], [(both, 0, 0), (down, 0, 1)],
        [(down, 0, 0), (whole, 1, 0)], [(down, 0, 0), (right, 1, 0)], [(both, 0, 0), (right, 1, 0)], [(down, 0, 1), (right, 1, 0)],
    ]  # fmt: skip
    return np.array(pairs, dtype=np.int32)


def predict(reference, displacement):
    """What the vectors make of the reference, to the bit as an H.264 decoder does.

    Args:
        reference: (size, size) uint8.
        displacement: (size/8, size/8, 2) int32, (x, y) in quarter pixels.

    Returns:
        (size, size) uint8.
    """
    size, cells = reference.shape[0], displacement.shape[0]
    blocks = np.lib.stride_tricks.sliding_window_view(half_pixel_planes(reference), (CELL, CELL), axis=(1, 2))
    samples = quarter_pixel_table()[(displacement[..., 1] & 3) * 4 + (displacement[..., 0] & 3)]  # (n, n, 2, 3)
    corner = CELL * np.arange(cells)
    found = []
    for which in range(2):
        plane, down, right = np.moveaxis(samples[..., which, :], -1, 0)
        y = corner[:, None] + (displacement[..., 1] >> 2) + down
        x = corner[None, :] + (displacement[..., 0] >> 2) + right
        y, x = (np.clip(place, -MARGIN, size + MARGIN - CELL) + MARGIN for place in (y, x))
        found.append(blocks[plane, y, x])  # (n, n, 8, 8)
    average = (found[0] | found[1]) - ((found[0] ^ found[1]) >> 1)  # (a + b + 1) / 2, rounded down, within a byte
    return average.transpose(0, 2, 1, 3).reshape(size, size)
