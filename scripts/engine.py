"""An engine of the release build on a directory of its own, for the scripts that measure one.

`with Engine(name, port) as engine:` builds the binary, makes the directory beside it, and in the end
kills what runs and removes the directory. Listens on `port` (MQTT), `port + 1` (HTTP), and from
`port + 2` on (Kafka).
"""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request


def drop_caches():
    """Lets the kernel forget what it has read. Says whether it did."""
    subprocess.run(["sync"], check=True)
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("3")
        return "cold"
    except OSError:
        return "warm (not root)"


class Engine:
    def __init__(self, name, port, flags=(), config=""):
        self.name, self.port, self.flags, self.config = name, port, flags, config
        self.kafka = f"127.0.0.1:{port + 2}"
        self.process = None

    def __enter__(self):
        subprocess.run(["cargo", "build", "--release", "--quiet", "--locked"], check=True)
        built = os.path.realpath(os.environ.get("CARGO_TARGET_DIR", "target")) + "/release"
        self.binary = f"{built}/tidegate"
        self.place = tempfile.mkdtemp(prefix=f"{self.name}.", dir=built)
        self.data = f"{self.place}/tidegate-data"
        with open(f"{self.place}/tidegate.toml", "w") as file:
            file.write(self.config)
        self.log = open(f"{self.place}/engine.log", "w+")
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.log.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def start(self):
        """Returns the seconds until it is ready."""
        begun = time.monotonic()
        listen = [f"--mqtt-listen=127.0.0.1:{self.port}", f"--http-listen=127.0.0.1:{self.port + 1}",
                  f"--kafka-listen={self.kafka}"]
        self.process = subprocess.Popen(
            [self.binary, "serve", "--config=tidegate.toml", *listen, *self.flags],
            cwd=self.place, stdout=self.log, stderr=self.log)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port + 1}/readyz", timeout=2)
                return time.monotonic() - begun
            except OSError:
                if self.process.poll() is not None:
                    self.log.seek(0)
                    code = self.process.returncode
                    raise SystemExit(f"{self.name}: the engine ended with {code}:\n{self.log.read()}")
                time.sleep(0.005)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def load(self, seconds):
        """100 connections that publish messages of 1 KiB as fast as they are acknowledged."""
        return subprocess.Popen(
            [self.binary, "bench", f"--connect=127.0.0.1:{self.port}", "--connections=100", "--window=16",
             "--payload-bytes=1024", "--warmup=0s", f"--duration={seconds}s", "--quiet"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def segments(self):
        return sorted(glob.glob(f"{self.data}/g*/s*/*.log"))
