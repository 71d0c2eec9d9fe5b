"""Takes the file out of a multipart form, `curl -F file=@photo.jpg URL`.

The form is parsed in memory, by python-multipart: it was received within the
limits of every body, and nothing is written to a disk.
"""

import re

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

_SEND = "Send one file and nothing else: curl -F file=@photo.jpg URL"


def is_form(content_type):
    """Says whether a body of this `Content-Type` is a multipart form."""
    return content_type.strip().lower().startswith("multipart/")


def read_file(content_type, body):
    """Takes the only part out of a form, whatever its name.

    Args:
        content_type: The request's header, which has the boundary.
        body: Bytes of the form.

    Returns:
        Bytes of the file.

    Raises:
        HTTPException: If the body is no such form; with status 400.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _not_a_form("its Content-Type has no boundary.")
    # The parser would look at what follows these byte by byte.
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
