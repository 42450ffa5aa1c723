"""The client of a served model: it takes plain Python values and returns predictions. It needs only an address.

    with Client("127.0.0.1:8001", model="houses") as client:
        client.predict({"rooms": 3, "town": "Ulm"})     # {"value": ..., "low": ..., "high": ..., "release": "..."}
        client.predict([{"rooms": 3}, {"rooms": 4}])    # a list of such answers
        client.predict(frame)                           # a data frame of answers, with the index of `frame`
        client.predict("houses.csv")                    # a list with an answer for each row of the file
        client.predict(row for row in endless)          # an iterator of answers, which reads a few requests ahead

Each kind of column takes the same values as in training. None, NaN and an absent column are missing values. A category
that was not in the training data is an unknown one, which the answer counts: {..., "unknown_words": {"town": 1}}. Whole
numbers, booleans and times that are categories may be written in several ways: 2 and 2.0, True and TRUE.
"""

from serving.client.asynchronous import AsyncClient
from serving.client.client import Client
from serving.client.errors import AccessDenied, RowError, ServerError, TlsError, Unavailable
from serving.client.model_info import Answer, Row, Served

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "Answer",
    "AsyncClient",
    "Client",
    "Row",
    "RowError",
    "Served",
    "ServerError",
    "TlsError",
    "Unavailable",
]
