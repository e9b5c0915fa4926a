"""A certificate authority, and what it signs: servers on loopback, and clients by user and groups."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """Writes `NAME.crt` and `NAME.key` into its folder; its own certificate is `ca.crt`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject("test-ca")
        usage = x509.BasicConstraints(ca=True, path_length=None)
        certificate = _unsigned(self._subject, self._key).issuer_name(self._subject)
        certificate = certificate.add_extension(usage, critical=True)
        self._write("ca", certificate.sign(self._key, hashes.SHA256()), self._key)

    def file(self, name: str) -> str:
        """The path of a file of the folder."""
        return str(self._folder / name)

    def issue(self, name: str, groups: Sequence[str] = ()) -> None:
        """A pair that a server on 127.0.0.1 can show, and a client as the user `name` of `groups`."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
        certificate = (
            _unsigned(_subject(name, groups), key)
            .issuer_name(self._subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        self._write(name, certificate.sign(self._key, hashes.SHA256()), key)

    def _write(self, name: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        Path(self.file(f"{name}.crt")).write_bytes(certificate.public_bytes(Encoding.PEM))
        Path(self.file(f"{name}.key")).write_bytes(pem)


def _subject(name: str, groups: Sequence[str] = ()) -> x509.Name:
    # Kubernetes reads the user from the common name and groups from organisations.
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _unsigned(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
    )
