"""Reads the file in a multipart form, `curl -F file=@photo.jpg URL`.

python-multipart parses the form in memory. The limits of bodies apply to it,
and nothing is written to disk.
"""

import re

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

_SEND = "Send one file and nothing else: curl -F file=@photo.jpg URL"


def is_form(content_type):
    """Returns whether a `Content-Type` is that of a multipart form."""
    return content_type.strip().lower().startswith("multipart/")


def read_file(content_type, body):
    """Returns the only part of a form, which may have any name.

    Args:
        content_type: The request's header with the boundary.
        body: Bytes of the form.

    Returns:
        Bytes of the file.

    Raises:
        HTTPException: If the body is not such a form, with status 400.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _not_a_form("its Content-Type has no boundary.")
    # The parser would process the rest byte by byte.
    delimiter = b"--" + boundary
    if body.count(delimiter) > 100:
        raise _not_a_form("it has too many parts.")
    if re.search(re.escape(delimiter) + rb"[ \t]{100}", body):
        raise _not_a_form("a boundary is followed by too many spaces.")
    parts, ends = [], []

    def begin():
        parts.append(bytearray())
        if len(parts) > 1:
            raise _not_a_form("it has more than one part.")

    def extend(data, start, end):
        parts[-1] += data[start:end]

    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": begin,
                "on_part_data": extend,
                "on_end": lambda: ends.append(True),
            },
        )
        parser.write(body)
    except FormParserError as error:
        raise _not_a_form("it can't be parsed.") from error
    if not ends:
        raise _not_a_form("it ends early.")
    if not parts:
        raise _not_a_form("it has no file.")
    return bytes(parts[0])


def _not_a_form(reason):
    return HTTPException(400, f"The form is not accepted: {reason} {_SEND}")
