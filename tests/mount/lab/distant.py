"""A repository in a bucket, reached through a proxy."""

import os
import secrets

from .bucket import Bucket
from .proxy import Proxy
from .shell import check
from .world import World


class Distant(World):
    """A World whose repository is below a prefix of its own in the bucket of all tests."""

    def __init__(self, world, name="distant", prefix=None, endpoint=None, bucket=None):
        super().__init__(world.binary, world.root, name)
        world.others.append(self)
        self.bucket = bucket or Bucket()
        self.below = prefix or f"mount/{secrets.token_hex(8)}"
        self.proxy = None if endpoint else Proxy()
        self.env |= {
            "BACKYFS_TARGET": f"s3://{self.bucket.name}/{self.below}",
            "BACKYFS_S3_ENDPOINT": endpoint or self.proxy.url,
            "AWS_ACCESS_KEY_ID": self.bucket.access,
            "AWS_SECRET_ACCESS_KEY": self.bucket.secret,
            "HOME": str(self.root),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for name in ("AWS_PROFILE", "AWS_ROLE_ARN", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
            self.env.pop(name, None)

    def objects(self):
        """Names of the repository's objects, without the prefix, with their sizes."""
        cut = len(self.below) + 1
        return {key[cut:]: size for key, size in self.bucket.list(self.below + "/").items()}

    def stored(self):
        return sum(self.objects().values())

    def asked(self):
        """The requests since the last call, as texts such as `put packs`."""
        def about(request):
            where = request.path if request.kind != "list" else request.query.replace("%2F", "/").partition("prefix=")[2]
            where = where.split("&")[0].split(self.below + "/")[-1]
            return f"{request.kind} {where.split('/')[0]}"

        return [about(request) for request in self.proxy.take()]

    def log(self):
        """What the daemon wrote down."""
        path = self.state / "backyfs.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def everything_said(self):
        """Every text that the program left behind: log, status, what ps shows."""
        texts = [self.log()]
        if self.mnt_is_mounted():
            texts += [path.read_text(errors="replace") for path in (self.mnt / "status").iterdir()]
            pid = self.pid()
            with open(f"/proc/{pid}/cmdline", "rb") as cmdline, open("/proc/self/mountinfo") as mounts:
                texts += [cmdline.read().decode(errors="replace"), mounts.read()]
        return "\n".join(texts)

    def sentence(self, *args, code=None, **env):
        """Runs a command that fails, and returns its one line of complaint."""
        done = self.run(*args, ok=False, env=env)
        text = done.stderr.decode(errors="replace").strip()
        check(done.returncode != 0, f"{args} succeeded")
        check(code is None or done.returncode == code, f"{args}: exit {done.returncode}, not {code}: {text}")
        check(text.startswith("backyfs: ") and "\n" not in text, f"not one sentence: {text!r}")
        check(os.environ.get("BACKYFS_TEST_S3", "").split("@")[0].split(":")[-1] not in text, f"a secret in {text!r}")
        return text
