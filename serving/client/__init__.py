"""Asking a served model: raw values in as people hold them, answers out. It needs the server's address and no file.

    with Client("127.0.0.1:8001", model="houses") as client:
        client.predict({"rooms": 3, "town": "Ulm"})     # {"value": ..., "low": ..., "high": ..., "release": "..."}
        client.predict([{"rooms": 3}, {"rooms": 4}])    # a list of such answers
        client.predict(frame)                           # a frame of them, with the index of `frame`
        client.predict("houses.csv")                    # a list, one for each row of the file
        client.predict(row for row in endless)          # an iterator of answers, read a few requests ahead

Whatever a kind takes in training it takes here: None and NaN are missing, and so is an absent column; a word that
training did not have is an unknown one. Words are compared as text, and 1.0 is another word than 1.
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
