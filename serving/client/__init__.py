"""Asking a served model: raw values in as people hold them, answers out. It needs the server's address and no file.

    with Client("127.0.0.1:8001", model="houses") as client:
        client.predict({"rooms": 3, "town": "Ulm"})     # {"value": ..., "low": ..., "high": ..., "release": "..."}
        client.predict([{"rooms": 3}, {"rooms": 4}])    # a list of such answers
        client.predict(frame)                           # a frame of them, with the index of `frame`
        client.predict("houses.csv")                    # a list, one for each row of the file

Whatever a kind takes in training it takes here: None and NaN are missing, and so is an absent column; a word that
training did not have is an unknown one. Words are compared as text, and 1.0 is another word than 1.
"""

from serving.client.client import Answer, AsyncClient, Client, Row, Served, ServerError, Unavailable

__all__ = ["Answer", "AsyncClient", "Client", "Row", "Served", "ServerError", "Unavailable"]
