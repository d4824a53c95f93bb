"""The answer to a change."""

from litestar import Response

from application.ports import Receipt
from web.preconditions import etag


def answer(receipt: Receipt) -> Response[Receipt]:
    """The receipt: 201 for what was created, else 200; with the new version as the ETag."""
    status = 201 if receipt.status == "created" else 200
    headers = {"ETag": etag(receipt.version), "Cache-Control": "no-store"}
    return Response(receipt, status_code=status, headers=headers)
