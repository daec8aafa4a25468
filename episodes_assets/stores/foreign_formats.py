"""What a file is that is neither CSV in UTF-8 nor Parquet: told by its first and its last bytes."""

import json

_UNPACK = "unpack it"
_SAVE = "save it as CSV in UTF-8, or as Parquet"
_SAVE_AS_UTF8 = "save it as UTF-8"
# By what the file begins with; of two that fit, the first counts.
_SIGNATURES = {
    b"\x1f\x8b": ("compressed with gzip", _UNPACK),
    b"\x1f\x9d": ("compressed with compress (.Z)", _UNPACK),
    b"BZh": ("compressed with bzip2", _UNPACK),
    b"\xfd7zXZ\0": ("compressed with xz", _UNPACK),
    b"LZIP": ("compressed with lzip", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed with lz4", _UNPACK),
    b"\xff\x06\0\0sNaPpY": ("compressed with snappy", _UNPACK),
    # What lz4 and zstd may begin with: 0x184d2a50 to 0x184d2a5f.
    **{bytes([0x50 + n, 0x2A, 0x4D, 0x18]): ("compressed with lz4 or zstd", _UNPACK) for n in range(16)},
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", _UNPACK),
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", f"{_UNPACK}, or {_SAVE}"),
    b"PK\x05\x06": ("an empty ZIP archive", "get the file again"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("a spreadsheet (.xls) or another document of Office", _SAVE),
    b"%PDF-": ("a PDF document", _SAVE),
    b"PARE": ("Parquet that is encrypted", "write it without encryption"),
    b"ARROW1\0\0": ("an Arrow or Feather file", _SAVE),
    b"FEA1": ("a Feather file", _SAVE),
    b"ORC": ("an ORC file", _SAVE),
    b"Obj\x01": ("an Avro file", _SAVE),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", _SAVE),
    b"SQLite format 3\0": ("a SQLite database", _SAVE),
    b"\xff\xfe\0\0": ("text in UTF-32", _SAVE_AS_UTF8),
    b"\0\0\xfe\xff": ("text in UTF-32", _SAVE_AS_UTF8),
    b"\xff\xfe": ("text in UTF-16", _SAVE_AS_UTF8),
    b"\xfe\xff": ("text in UTF-16", _SAVE_AS_UTF8),
}
_PADDING = {b"\0": "NUL bytes", b"\x1a": "end-of-file characters (Ctrl-Z, 0x1a)"}


def foreign_format(data: bytes) -> tuple[str, str] | None:
    """What a file is, and what to do about it; None if it may be CSV in UTF-8 or Parquet."""
    for signature, found in _SIGNATURES.items():
        if data.startswith(signature):
            return found
    # As RFC 4627 told it of JSON: by where the NULs are in the first characters, which are ASCII.
    encoding = json.detect_encoding(data)
    if not encoding.startswith("utf-8"):
        begin = data[:32].decode(encoding, "replace")[:8]
        if begin.isascii() and begin.isprintable():
            return f"text in {encoding[:6].upper()}", _SAVE_AS_UTF8
    return None


def padding(data: bytes) -> str | None:
    """What a text ends with that belongs to no row: what fills up a block, or marks the end of a file."""
    for byte, name in _PADDING.items():
        if (count := len(data) - len(data.rstrip(byte))) > 0:
            return f"{count:,} {name}"
    return None
