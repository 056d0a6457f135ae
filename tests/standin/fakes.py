"""What a Raspberry Pi shows of itself: /proc/cpuinfo, /sys and vcgencmd."""

import dataclasses

CORES = 4
CLOCK = "devices/system/cpu/cpufreq/policy0"
HEAT = "class/thermal/thermal_zone0/temp"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What sets one model of board apart."""

    title: str
    revision: str
    compatible: str
    emulated: str
    """The processor, by the emulator's name."""
    identity: tuple[str, str, str]
    """The processor's variant, part and revision."""
    features: str
    clock_khz: tuple[int, int]
    firmware: str
    """The firmware's folder below /sys/devices/platform; it moved with the Pi 5."""

    @property
    def throttled(self) -> str:
        return f"devices/platform/{self.firmware}/get_throttled"


KINDS = {
    "4": Kind(
        title="Raspberry Pi 4 Model B Rev 1.5",
        revision="c03115",
        compatible="raspberrypi,4-model-b\0brcm,bcm2711\0",
        emulated="cortex-a72",  # ARMv8.0: dot products and half floats, which a Pi 4 lacks, are illegal
        identity=("0x0", "0xd08", "3"),
        features="fp asimd evtstrm crc32 cpuid",
        clock_khz=(600_000, 1_800_000),
        firmware="soc/soc:firmware",
    ),
    "5": Kind(
        title="Raspberry Pi 5 Model B Rev 1.0",
        revision="c04170",
        compatible="raspberrypi,5-model-b\0brcm,bcm2712\0",
        emulated="cortex-a76",
        identity=("0x4", "0xd0b", "1"),
        features="fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
        clock_khz=(1_500_000, 2_400_000),
        firmware="soc@107c000000/soc@107c000000:firmware",
    ),
}

VCGENCMD = """#!/bin/sh
case "$1" in
  get_throttled)
    for word in /sys/devices/platform/soc*/soc*:firmware/get_throttled; do read -r bits <"$word"; done
    echo "throttled=0x$bits" ;;
  measure_temp)
    read -r heat </sys/class/thermal/thermal_zone0/temp
    echo "temp=$((heat / 1000)).$((heat % 1000 / 100))'C" ;;
  measure_clock)
    read -r clock </sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq
    echo "frequency(48)=${clock}000" ;;
  *)
    echo 'error=1 error_msg="Command not registered"'
    exit 255 ;;
esac
"""


def cpuinfo(kind: Kind, serial: str) -> str:
    variant, part, revision = kind.identity
    core = {
        "BogoMIPS": "108.00",
        "Features": kind.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": variant,
        "CPU part": part,
        "CPU revision": revision,
    }
    cores = [_lines({"processor": str(number), **core}) for number in range(CORES)]
    return "\n".join([*cores, _lines({"Revision": kind.revision, "Serial": serial, "Model": kind.title})])


def _lines(fields: dict[str, str]) -> str:
    return "".join(f"{name}\t: {value}\n" for name, value in fields.items())


def sysfs(kind: Kind, serial: str) -> dict[str, str]:
    """The files of /sys, by their paths in it."""
    slowest, fastest = kind.clock_khz
    every = f"0-{CORES - 1}"
    files = {
        kind.throttled: "0",
        HEAT: "48300",
        "class/thermal/thermal_zone0/type": "cpu-thermal",
        f"{CLOCK}/affected_cpus": " ".join(map(str, range(CORES))),
        f"{CLOCK}/cpuinfo_max_freq": str(fastest),
        f"{CLOCK}/cpuinfo_min_freq": str(slowest),
        f"{CLOCK}/scaling_available_governors": "conservative ondemand userspace powersave performance schedutil",
        f"{CLOCK}/scaling_cur_freq": str(fastest),
        f"{CLOCK}/scaling_driver": "cpufreq-dt",
        f"{CLOCK}/scaling_governor": "ondemand",
        f"{CLOCK}/scaling_max_freq": str(fastest),
        f"{CLOCK}/scaling_min_freq": str(slowest),
        "devices/system/cpu/kernel_max": "255",
        **{f"devices/system/cpu/{state}": every for state in ("online", "possible", "present")},
    }
    for core in range(CORES):
        topology = f"devices/system/cpu/cpu{core}/topology"
        files |= {
            f"{topology}/core_id": str(core),
            f"{topology}/core_siblings": f"{(1 << CORES) - 1:x}",
            f"{topology}/core_siblings_list": every,
            f"{topology}/physical_package_id": "0",
            f"{topology}/thread_siblings": f"{1 << core:x}",
            f"{topology}/thread_siblings_list": str(core),
        }
    tree = {"model": kind.title + "\0", "serial-number": serial + "\0", "compatible": kind.compatible}
    return {name: f"{text}\n" for name, text in files.items()} | {
        f"firmware/devicetree/base/{name}": text for name, text in tree.items()
    }
