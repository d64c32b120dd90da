"""The server of the tests, spoken to without the program under test: a bucket, its objects, signed by hand."""

import datetime
import hashlib
import hmac
import http.client
import os
import urllib.parse
import xml.etree.ElementTree
from collections import Counter

from .shell import check

BUCKET = "backyfs-test"


def server():
    """Host, port, access key and secret key of the server that tests/lab/ceph started."""
    text = os.environ.get("BACKYFS_TEST_S3")
    check(text, "this test needs an S3 server: run it as `tests/lab/ceph run tests/mount/run distant`, or set BACKYFS_TEST_S3")
    url = urllib.parse.urlsplit(text)
    return url.hostname, url.port, url.username, url.password


class Bucket:
    """A bucket of that server; it is made when it is not there."""

    def __init__(self, name=BUCKET, headers=None):
        self.name = name
        self.host, self.port, self.access, self.secret = server()
        status, body = self.ask("PUT", "", headers=headers)
        check(status in (200, 409), f"the bucket cannot be made: {status} {body[:200]}")

    def ask(self, method, key, query=None, body=b"", headers=None):
        """One signed request (AWS Signature Version 4), with `headers` whose names are in lower case. Returns status and body."""
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        day, host = now[:8], f"{self.host}:{self.port}"
        path = urllib.parse.quote(f"/{self.name}/{key}")
        pairs = sorted((query or {}).items())
        line = "&".join(f"{urllib.parse.quote(k, safe='')}={urllib.parse.quote(v, safe='')}" for k, v in pairs)
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now, **(headers or {})}
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"{method}\n{path}\n{line}\n{lines}\n{names}\n{digest}"
        scope = f"{day}/us-east-1/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key_bytes = f"AWS4{self.secret}".encode()
        for part in (day, "us-east-1", "s3", "aws4_request"):
            key_bytes = hmac.new(key_bytes, part.encode(), hashlib.sha256).digest()
        signature = hmac.new(key_bytes, text.encode(), hashlib.sha256).hexdigest()
        headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={self.access}/{scope}, SignedHeaders={names}, Signature={signature}"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path + ("?" + line if line else ""), body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def list(self, prefix=""):
        """Names below a prefix, with their sizes."""
        return {key: int(size) for key, size in self._list(prefix, "Size").items()}

    def classes(self, prefix=""):
        """Names below a prefix, with their storage classes."""
        return self._list(prefix, "StorageClass")

    def _list(self, prefix, what):
        found, token = {}, None
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            status, body = self.ask("GET", "", query)
            check(status == 200, f"list: {status} {body[:200]}")
            root = xml.etree.ElementTree.fromstring(body)
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            for entry in root.iter(f"{space}Contents"):
                found[entry.findtext(f"{space}Key")] = entry.findtext(f"{space}{what}")
            token = root.findtext(f"{space}NextContinuationToken")
            if root.findtext(f"{space}IsTruncated") != "true":
                return found

    def get(self, key):
        """An object's bytes."""
        status, body = self.ask("GET", key)
        check(status == 200, f"get {key}: {status}")
        return body

    def put(self, key, body):
        """Stores an object."""
        status, answer = self.ask("PUT", key, body=body)
        check(status == 200, f"put {key}: {status} {answer[:200]}")

    def delete(self, key):
        """Removes an object."""
        self.ask("DELETE", key)

    def versions(self, prefix=""):
        """Names below a prefix with how many versions of each there are, those that are hidden too."""
        status, body = self.ask("GET", "", {"versions": "", "prefix": prefix, "max-keys": "1000"})
        check(status == 200, f"versions: {status} {body[:200]}")
        root = xml.etree.ElementTree.fromstring(body)
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        return Counter(entry.findtext(f"{space}Key") for entry in root.iter(f"{space}Version"))
