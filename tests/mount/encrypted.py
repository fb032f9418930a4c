# SPDX-License-Identifier: MIT
"""Encrypted images in a mount: with their key they are as any other, and no view has the key."""
import os

from mount_suite import *  # noqa: F403

PASSPHRASE = "hunter2 in the attic"
SIZE = 8 * MiB


def make(env, name="disk.qcow2"):
    key = env.file("key", PASSPHRASE)
    os.chmod(key, 0o600)
    env.file("other", "something else")
    os.chmod(env / "other", 0o600)
    run(BGFS, "create", "-q", "--object", f"secret,id=k,file={key}", "-f", "qcow2",
        "-o", "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10", env / name,
        str(SIZE))


def graph(env, secret="key0", extra=""):
    return env.file("graph.yaml", f"""version: 1
secrets:
  - {{ id: key0, file: key }}
  - {{ id: other, file: other }}
  - {{ id: written, data: '{PASSPHRASE}' }}
nodes:
  - {{ node-name: web, driver: qcow2, encrypt: {{ format: luks, key-secret: {secret} }},
       file: {{ driver: file, filename: disk.qcow2 }} }}
exports:
  - {{ name: web, node-name: web, writable: true{extra} }}
""")


def every_view(m):
    """The text of every file below the control directories."""
    for top in ("web.d", ".bgfs"):
        for directory, _, files in os.walk(m / top):
            for name in files:
                path = os.path.join(directory, name)
                if os.path.islink(path) or name in ("disk", "events"):
                    continue
                try:
                    with open(path, "rb") as file:
                        yield path, file.read(1 << 20)
                except OSError:
                    continue


@case("an encrypted image is read and written, and nothing shows its key", needs=["qemu-img"])
def is_served(env):
    make(env)
    m = env.mount(graph(env))
    data = pattern(3 * MiB + 777)
    pwrite(m / "web", 12345, data)
    fsync(m / "web")
    equal(pread(m / "web", 12345, len(data)), data, "what was written")
    equal(pread(m / "web", 0, 12345), bytes(12345), "what was not")
    contains(m.read("web.d/info"), "encrypted: yes", "info")
    for path, text in every_view(m):
        check(PASSPHRASE.encode() not in text, f"{path} has the passphrase")
    m.umount()
    words = ["--object", f"secret,id=k,file={env / 'key'}", "--image-opts",
             f"driver=qcow2,file.filename={env / 'disk.qcow2'},encrypt.key-secret=k"]
    run("qemu-img", "check", *words)
    run("qemu-img", "convert", "-O", "raw", *words, env / "out.raw")
    whole = bytearray(SIZE)
    whole[12345:12345 + len(data)] = data
    equal((env / "out.raw").read_bytes(), bytes(whole), "what the peer reads")


@case("without the right key a root fails, and says so without the key")
def wrong_key(env):
    make(env)
    m = env.mount(graph(env, "other"))
    state = m.read("web.d/state").splitlines()
    equal(state[0], "failed", "state")
    contains(state[1], "secret 'other': the secret opens none of the 1 active key slots")
    check("something else" not in m.stderr + m.read("web.d/last-error"), "the secret is shown")
    m.umount()


@case("a reload brings other secrets, and one that fails leaves the old ones")
def is_reloaded(env):
    make(env)
    m = env.mount(graph(env))
    data = pattern(MiB)
    pwrite(m / "web", 0, data)
    with open(m / "web", "rb") as held:
        graph(env, "other")
        done = run(BGFS, "reload", m.path, ok=False)
        check(done.returncode != 0, "a wrong key was taken")
        contains(done.stderr, "opens none of the 1 active key slots", "why not")
        equal(pread(m / "web", 0, MiB), data, "what the old key shows")
        graph(env, "written")
        run(BGFS, "reload", m.path)
        equal(os.pread(held.fileno(), MiB, 0), data, "through an open file")
    equal(pread(m / "web", 0, MiB), data, "what the same key under another name shows")
    m.umount()
