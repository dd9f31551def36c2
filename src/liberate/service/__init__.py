"""What is served over HTTP; loopback unless told otherwise.

May import everything but the command line. Starlette and uvicorn are imported here and nowhere else.
"""
