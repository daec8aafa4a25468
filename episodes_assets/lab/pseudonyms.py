"""Pseudonyms of viewers: a keyed permutation of 64-bit ids, and a keyed hash of ids that are text.

No two ids get the same pseudonym, so every count of distinct viewers stays exactly what it was. Without the
key, no id can be computed from its pseudonym, and the key is deleted as soon as the last file is written.
The permutation is a balanced Feistel network of ten rounds whose round function is AES-128, a pseudorandom
function: four rounds would make a pseudorandom permutation (Luby and Rackoff), the others are margin, as in
NIST's FF1. AES comes from `cryptography`; whole columns are handed to it at once.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY_BYTES = 32
_ROUNDS = 10
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFF_FFFF)
# Of which the blocks, 16 bytes for each id, fit into a processor's cache.
_BATCH = 1 << 16
# 128 bits: among a billion viewers two would get the same with a probability of 1 to 10^21.
_TEXT_BYTES = 16


def new_key() -> bytes:
    """A random key."""
    return secrets.token_bytes(KEY_BYTES)


class Pseudonyms:
    """The pseudonyms that a key gives.

    Args:
        key: `KEY_BYTES` random bytes.

    Raises:
        ValueError: If the key has another length.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        own = hashlib.blake2b(key=key, digest_size=16, person=b"viewers").digest()
        self._cipher = Cipher(algorithms.AES(own), modes.ECB())  # noqa: S305  each block is used by itself
        self._text_key = hashlib.blake2b(key=key, digest_size=32, person=b"viewers as text").digest()

    def of_ids(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The pseudonyms of ids, in their order: others for others, on the whole range of 64 bits."""
        found = np.empty(len(ids), np.int64)
        for begin in range(0, len(ids), _BATCH):
            part = slice(begin, begin + _BATCH)
            found[part] = self._permuted(np.ascontiguousarray(ids[part], np.int64).view(np.uint64))
        return found

    def _permuted(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        encryptor = self._cipher.encryptor()
        left, right = ids >> _HALF, ids & _LOW
        blocks = np.zeros((len(ids), 2), "<u8")
        for number in range(_ROUNDS):
            blocks[:, 0], blocks[:, 1] = right, number
            output = np.frombuffer(encryptor.update(blocks.tobytes()), "<u8")[::2]
            left, right = right, left ^ (output & _LOW)
        return ((left << _HALF) | right).view(np.int64)

    def of_column(self, column: pa.Array) -> pa.Array:
        """The pseudonyms of a column of ids, numbers or text; what is missing stays missing."""
        if pa.types.is_string(column.type):
            return _by_value(column, self._of_texts)
        ids = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
        return pa.array(self.of_ids(ids), pa.int64(), mask=missing)

    def _of_texts(self, texts: pa.Array) -> Iterator[str]:
        for text in texts.to_pylist():
            yield hashlib.blake2b(text.encode(), key=self._text_key, digest_size=_TEXT_BYTES).hexdigest()


def _by_value(column: pa.Array, replace: Callable[[pa.Array], Iterator[str]]) -> pa.Array:
    """A column of text in which each distinct value is replaced."""
    encoded = column.dictionary_encode()
    values = pa.array(replace(encoded.dictionary), pa.string())
    return pa.DictionaryArray.from_arrays(encoded.indices, values).cast(pa.string())
