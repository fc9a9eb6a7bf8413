"""Somebody else's identity provider: it signs id_tokens with RS256 and publishes its key over TLS on loopback.

The standard library has no RSA, but a signature is one power of one number. The certificate and the key in
`identity_provider.pem` are for this run and prove nothing to anybody; both names lead to 127.0.0.1 alone.
"""

import base64
import hashlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PEM = Path(__file__).with_name("identity_provider.pem")
# What stands before a SHA-256 hash that is signed by the rules of PKCS#1 (RFC 8017 §9.2).
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")


class IdentityProvider:
    """Running from the moment it is made; `url` is its issuer."""

    def __init__(self):
        self.n, self.e, self.d = private_numbers(PEM.read_text())
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler):
                text = json.dumps(provider.keys()).encode()
                handler.send_response(200 if handler.path == "/keys" else 404)
                handler.send_header("Content-Length", str(len(text)))
                handler.end_headers()
                handler.wfile.write(text)

            def log_message(handler, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(PEM)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def keys(self) -> dict:
        numbers = {name: encoded(number_bytes(number)) for name, number in (("n", self.n), ("e", self.e))}
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "idp-1", **numbers}]}

    def token(self, subject: str, audience: str, seconds: int = 300) -> str:
        """What it gives to an application whose user has logged in."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": audience, "sub": subject, "iat": now, "exp": now + seconds}
        header = {"alg": "RS256", "kid": "idp-1", "typ": "JWT"}
        signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
        length = (self.n.bit_length() + 7) // 8
        hashed = SHA256 + hashlib.sha256(signed.encode()).digest()
        padded = b"\x00\x01" + b"\xff" * (length - len(hashed) - 3) + b"\x00" + hashed
        signature = pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(length, "big")
        return f"{signed}.{encoded(signature)}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number_bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def private_numbers(pem: str) -> tuple[int, int, int]:
    """Modulus, public and private exponent: the second to fourth of the numbers that PKCS#1 lists."""
    begin, end = (f"-----{word} RSA PRIVATE KEY-----" for word in ("BEGIN", "END"))
    der = base64.b64decode(pem.split(begin)[1].split(end)[0])
    _, content, _ = element(der)
    numbers = []
    while content:
        _, number, content = element(content)
        numbers.append(int.from_bytes(number, "big"))
    return numbers[1], numbers[2], numbers[3]


def element(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element of DER: its tag, its content, and what follows."""
    length, start = der[1], 2
    if length & 0x80:
        start = 2 + (length & 0x7F)
        length = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + length], der[start + length :]
