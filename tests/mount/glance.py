"""What is seen at a glance: metrics, progress, log and report of a mount, and `backyfs status`."""

import json
import os
import re
import signal
import struct
import subprocess
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.case import test
from lab.shell import MIB, check, equal, eventually, needs, sh

from schedules import configured

# The reader that takes OpenMetrics at its word. It belongs to the system's Python.
STRICT = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as read; print(len(list(read(sys.stdin.read()))))"
SYSTEM_PYTHON = "/usr/bin/python3"


def metrics(w):
    """Samples by name and labels."""
    lines = (w.mnt / "status/metrics").read_text().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {key: float(value) for key, value in pairs}


def accepted(text):
    """Both readers take the text: the older format's with all its advice, and a strict one of OpenMetrics."""
    needs("promtool", SYSTEM_PYTHON)
    done = sh("promtool", "check", "metrics", input=text, ok=False)
    equal((done.returncode, done.stdout + done.stderr), (0, b""), "promtool check metrics")
    check(int(sh(SYSTEM_PYTHON, "-c", STRICT, input=text).stdout) > 40, "families of OpenMetrics")


@test(mounted=False, seconds=300)
def metrics_are_accepted_and_count_what_happens(w, samples):
    configured(w)
    before = metrics(w)
    accepted((w.mnt / "status/metrics").read_bytes())
    size = (samples / "disk.img").stat().st_size
    # A name may hold what labels have to escape.
    odd = 'quick "a"\\b'
    sh("cp", "--sparse=never", samples / "disk.img", w.incoming("vm"))
    sh("cp", samples / "small.img", w.incoming(odd))
    sh("cp", "--sparse=never", samples / "disk.img", w.incoming("vm"))
    sh("cmp", samples / "disk.img", w.original("vm"))
    after = metrics(w)
    text = (w.mnt / "status/metrics").read_bytes()
    accepted(text)
    check(text.endswith(b"# EOF\n"), text[-100:])
    grown = lambda key: after[key] - before.get(key, 0)
    check(grown("backyfs_mount_written_bytes_total") >= 2 * size, "written")
    check(grown("backyfs_mount_read_bytes_total") >= size, "read")
    check(grown('backyfs_blocks_total{outcome="stored"}') > 0, "stored")
    check(grown('backyfs_blocks_total{outcome="unchanged"}') + grown('backyfs_blocks_total{outcome="deduplicated"}') > 0, "known")
    check(0 < grown("backyfs_stored_sealed_bytes_total") < grown("backyfs_stored_plain_bytes_total"), "compressed")
    check(grown('backyfs_target_requests_total{request="put"}') > 3, "puts")
    equal(after['backyfs_target_request_duration_seconds_count{request="put"}'], after['backyfs_target_requests_total{request="put"}'], "each is timed")
    check(grown('backyfs_operation_duration_seconds_count{operation="flush"}') >= 3, "flushes")
    equal(after['backyfs_operation_duration_seconds_bucket{operation="write",le="+Inf"}'], after['backyfs_operation_duration_seconds_count{operation="write"}'], "buckets")
    equal((after["backyfs_names"], after['backyfs_versions{state="valid"}'], after["backyfs_catalog_readable"]), (2, 3, 1), "names and versions")
    check(0 <= after['backyfs_newest_version_age_seconds{name="vm"}'] < 120, "age")
    check(after["backyfs_deduplication_ratio"] > 1 < after["backyfs_compression_ratio"], "ratios")
    check(after["backyfs_target_free_bytes"] > 0, "space")
    # The clock of `quick` runs in seconds: it is late soon.
    label = '{name="quick \\"a\\"\\\\b",schedule="quick",breach="late"}'
    eventually("a breach is told", lambda: metrics(w).get("backyfs_sla_breaches" + label) == 1, 20)
    w.run("scrub", "--quiet")
    scrubbed = metrics(w)
    equal((scrubbed["backyfs_scrub_never_packs"], scrubbed["backyfs_scrub_last_findings"]), (0, 0), "scrubbed")
    check(0 <= scrubbed["backyfs_scrub_oldest_age_seconds"] < 120, "age of the scrub")
    w.run("scrub", "nothing-of-that-name", ok=False)
    # Metrics and report ask the target nothing: they are the same while it is away.
    w.repo.rename(w.root / "away")
    try:
        check(len(metrics(w)) > 100, "without the target")
        check("</html>" in (w.mnt / "status/report.html").read_text(), "the page without the target")
    finally:
        (w.root / "away").rename(w.repo)


@test
def errors_and_drafts_are_counted_and_logged(w, samples):
    with open(w.incoming("half"), "wb") as f:
        f.write(os.urandom(3 * MIB))
        f.flush()
        eventually("it is being written", lambda: "half: 3.0 MiB so far, being written by" in (w.mnt / "status/progress").read_text())
        seen = metrics(w)
        equal((seen["backyfs_drafts"], seen["backyfs_drafts_bytes"]), (1, 3 * MIB), "a draft")
        check("half" in (w.mnt / "status/report.html").read_text(), "in the report")
    eventually("it is published", lambda: metrics(w)["backyfs_drafts"] == 0)
    uid = w.uid("half")
    with open(w.by_version(uid) / "valid", "wb", buffering=0) as f:
        try:
            f.write(b"perhaps\n")
            check(False, "nonsense was taken")
        except OSError:
            pass
    check(metrics(w)['backyfs_operation_errors_total{operation="write",error="other"}'] == 1, "an error")
    check("perhaps" in (w.mnt / "status/log").read_text(), "the log says why")
    equal((w.mnt / "status/log").stat().st_mode & 0o777, 0o400, "the log is its owner's")
    equal((w.mnt / "status/progress").read_text(), "nothing is being done\n", "progress")


@test
def commands_at_work_are_seen_by_others(w, samples):
    source = w.root / "source"
    with open(source, "wb") as f:
        for _ in range(96):
            f.write(os.urandom(MIB))
    # So slow that it is seen.
    job = subprocess.Popen([w.binary, "backup", source, "slow", "--quiet", "--upload-limit", "8M", "--memory", "64M"], env=w.env, stdout=subprocess.DEVNULL)
    try:
        eventually("the mount tells of it", lambda: re.search(r"^backup slow: \[[#.]{20}\] \d+% of 96.0 MiB, ", (w.mnt / "status/progress").read_text(), re.M), 30)
        check("<progress" in (w.mnt / "status/report.html").read_text(), "the report shows it")
        row = w.json("status")["jobs"][0]
        equal((row["verb"], row["what"], row["pid"], row["total"]), ("backup", "slow", job.pid, 96 * MIB), "status")
        check("running: backup slow" in w.run("status").stdout.decode(), "status for people")
        job.send_signal(signal.SIGKILL)
        job.wait()
        equal((w.mnt / "status/progress").read_text(), "nothing is being done\n", "the dead do not work")
    finally:
        if job.poll() is None:
            job.kill()
            job.wait()


@test
def status_and_its_live_view(w, samples):
    w.run("backup", samples / "small.img", "vm")
    text = w.run("status").stdout.decode()
    for expected in ("newest:", "vm, ", "schedules:", "no name has one", "scrub:", "never on this host", "deduplicated"):
        check(expected in text, f"{expected} in {text}")
    status = w.json("status")
    equal((status["late"], status["names_by_sla"]["unscheduled"], status["jobs"]), ([], 1, []), "status --json")
    live = subprocess.Popen([w.binary, "status", "--watch=1"], env=w.env, stdout=subprocess.PIPE)
    sh("cp", samples / "disk.img", w.incoming("other"))
    time.sleep(3.8)
    live.send_signal(signal.SIGINT)
    out, _ = live.communicate(timeout=20)
    equal(live.returncode, 0, "an interrupted view ends well")
    check(out.count(b"repository:") >= 3 and b"/s written" in out and b"cache hits" in out, out[-800:])


@test(mounted=False)
def secrets_are_masked(w, samples):
    w.env |= {"AWS_ACCESS_KEY_ID": "who", "AWS_SECRET_ACCESS_KEY": "very-secret"}
    w.start()
    config = (w.mnt / "status/config").read_text()
    check("very-secret" not in config and '# s3-secret-key = "***"' in config, config)


def picture(png):
    """Width, height and rows of RGB(A) pixels of a PNG without interlacing (RFC 2083)."""
    data, at, body = Path(png).read_bytes(), 8, b""
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", data[at + 8 : at + 18])
        elif kind == b"IDAT":
            body += data[at + 8 : at + 8 + length]
        at += length + 12
    each = {2: 3, 6: 4}[colour]
    equal(depth, 8, "bits")
    raw, rows, stride, above = zlib.decompress(body), [], width * each, bytes(width * each)
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        for x in range(stride):
            left, up, corner = line[x - each] if x >= each else 0, above[x], above[x - each] if x >= each else 0
            if kind == 4:
                guess = left + up - corner
                line[x] = (line[x] + min((left, up, corner), key=lambda v: abs(guess - v))) & 255
            elif kind:
                line[x] = (line[x] + {1: left, 2: up, 3: (left + up) // 2}[kind]) & 255
        rows.append(bytes(line))
        above = rows[-1]
    return width, height, each, rows


BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]


def browse(w, *options, page="status/report.html", timeout=90):
    """Chromium opens the report from the mount."""
    needs("chromium-headless-shell")
    profile = w.root / "profile"
    return sh("chromium-headless-shell", *BROWSER, f"--user-data-dir={profile}", *options, f"file://{w.mnt}/{page}", timeout=timeout, env={**os.environ, "HOME": str(w.root)})


# What a browser found when the page had run: written into its title by a script of the test, which the page itself never holds.
PROBE = """<script>
const wide = document.documentElement.scrollWidth - innerWidth;
const shown = () => [...document.querySelectorAll('#rows > tr')].filter(r => r.offsetParent !== null && !r.classList.contains('unfolded')).length;
const all = shown(), find = document.getElementById('find');
document.dispatchEvent(new KeyboardEvent('keydown', {key: '/'}));
const focused = document.activeElement === find;
let some = -1, year = -1, again = -1;
if (find) {
    find.value = 'late-one';
    find.dispatchEvent(new Event('input', {bubbles: true}));
    some = shown();
    const button = [...document.querySelectorAll('#rows button')].find(b => b.offsetParent !== null);
    if (button) {
        button.focus(); button.click();
        year = document.querySelectorAll('.year rect.g').length;
        button.click();
        again = document.querySelectorAll('.year').length;
    }
}
document.body.dataset.probe = JSON.stringify({wide, all, focused, some, year, again});
</script></body>"""


def probe(w, width, dark=False):
    """Asks the page, in a copy with a probe at its end, what it looks like at a width."""
    page = w.root / "probed.html"
    page.write_text((w.mnt / "status/report.html").read_text().replace("</body>", PROBE))
    flags = [f"--window-size={width},900", "--dump-dom"] + (["--blink-settings=preferredColorScheme=0"] if dark else [])
    done = sh("chromium-headless-shell", *BROWSER, f"--user-data-dir={w.root / 'profile'}", *flags, f"file://{page}", env={**os.environ, "HOME": str(w.root)}, timeout=90)
    found = re.search(r'data-probe="([^"]*)"', done.stdout.decode())
    check(found, "the script has run: " + done.stderr.decode(errors="replace")[-400:])
    return json.loads(found[1].replace("&quot;", '"'))


def photographed(w, what):
    """Pictures of the page on wide, narrow and dark paper, as a browser draws it; nothing of it is cut off."""
    for label, width, dark in (("wide", 1200, False), ("phone", 360, False), ("dark", 1200, True)):
        shot = w.root / f"{what}-{label}.png"
        browse(w, f"--window-size={width},1400", f"--screenshot={shot}", *(["--blink-settings=preferredColorScheme=0"] if dark else []))
        got_width, _, each, rows = picture(shot)
        equal(got_width, width, "width of the picture")
        corner = rows[2][: each][:3]
        check((sum(corner) < 200) == dark, f"{what}, {label}: the paper is {tuple(corner)}")
        colours = len({row[at : at + 3] for row in rows[::7] for at in range(0, len(row), 7 * each)})
        check(colours > 12, f"{what}, {label}: a page of {colours} colours is empty")
        check(probe(w, width, dark)["wide"] <= 0, f"{what}: nothing scrolls sideways at {width} pixels")


@test(mounted=False, seconds=600)
def the_report_in_a_browser(w, samples):
    configured(w)
    text = (w.mnt / "status/report.html").read_text()
    check("There is no backup yet." in text, "an empty repository")
    photographed(w, "none")
    for name in ("vm", "host1/db", "quick late-one"):
        w.run("backup", samples / "small.img", name)
    photographed(w, "three")
    eventually("it is late", lambda: 'class="late"' in (w.mnt / "status/report.html").read_text(), 20)
    wide = probe(w, 1200)
    equal((wide["all"], wide["focused"], wide["some"], wide["year"], wide["again"]), (3, True, 1, 1, 0), "names, filter and year")
    for width in (1200, 320):
        check(probe(w, width)["wide"] <= 0, f"nothing scrolls sideways at {width} pixels")


@test(mounted=False)
def days_of_the_report_are_those_of_the_time_zone(w, samples):
    w.run("init")
    # Half past one in the morning of the 22nd in Kiritimati, which is 14 hours ahead, is the 21st in UTC.
    w.run("backup", samples / "small.img", "vm", "--created", "2025-11-21T11:30:00Z")
    for zone, day in (("UTC", "2025-11-21"), ("Pacific/Kiritimati", "2025-11-22")):
        w.up("-o", f"time-zone={zone}")
        text = (w.mnt / "status/report.html").read_text()
        check(f"Days are of {zone}." in text and f"From {day} to " in text, f"{zone}: {text[-400:]}")
        w.down()


@test(mounted=False, seconds=600)
def the_report_of_two_thousand_names(w, samples):
    w.run("init")
    # Whoever backs up much at once has many writers.
    w.up()
    names = [f"host{n % 40}-vm{n:04}" for n in range(2000)]

    def make(part):
        for name in part:
            with open(w.incoming(name), "wb") as f:
                f.write(name.encode())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, [names[at::8] for at in range(8)]))
    for file in ("report.html", "metrics"):
        time.sleep(0.3)
        began = time.monotonic()
        text = (w.mnt / "status" / file).read_bytes()
        took = time.monotonic() - began
        check(took < 1.0, f"{file}: {len(text)} bytes in {took:.2f} s")
        check(text.count(b"host7-vm0007") >= 1, file)
    found = probe(w, 1200)
    equal((found["all"], found["some"]), (2000, 0), "names shown, and found by what none of them has in it")
    photographed(w, "many")


TOP = Path(__file__).resolve().parents[2]


@test
def alerts_and_dashboard_ask_for_what_there_is(w, samples):
    needs("promtool")
    rules = TOP / "contrib/prometheus"
    sh("promtool", "check", "rules", rules / "backyfs-alerts.yml")
    sh("promtool", "test", "rules", rules / "backyfs-alerts-test.yml")
    dashboard = json.loads((TOP / "contrib/grafana/backyfs.json").read_text())
    questions = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", [])]
    check(len(questions) > 30, "the dashboard asks")
    # Each question is PromQL, once Grafana has filled in what it fills in.
    filled = [re.sub(r"\$(instance|name)", ".*", q).replace("$__rate_interval", "5m") for q in questions]
    asked = w.root / "asked.yml"
    asked.write_text(json.dumps({"groups": [{"name": "asked", "rules": [{"record": f"asked_{n}", "expr": q} for n, q in enumerate(filled)]}]}))
    sh("promtool", "check", "rules", asked)
    # What they ask for is written, or is documented as what is there at times only.
    w.run("backup", samples / "small.img", "vm")
    w.run("scrub", "--quiet")
    text = (w.mnt / "status/metrics").read_text()
    told = set(re.findall(r"^# HELP (\S+)", text, re.M))
    families = lambda text: {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bbackyfs_[a-z_]+", text)}
    expressions = "\n".join(questions + re.findall(r"expr: (.*)", (rules / "backyfs-alerts.yml").read_text()))
    equal(families(expressions) - told, set(), "asked for and never told")
    documented = families((TOP / "docs/metrics.md").read_text())
    equal(told - documented, set(), "told and not documented")
    equal(documented - told, set(), "documented and never told")
