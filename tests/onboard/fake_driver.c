/* A stand-in for libcuda.so.1 and libnvidia-ml.so.1: the functions that toolchain/onboard calls, with the real
 * signatures, on a "GPU" whose memory is the process's own, far above 4 GiB. FAKE_GPU=none: the driver finds no GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef void *handle;
typedef unsigned long long address;

static int none(void) {
  const char *gpu = getenv("FAKE_GPU");
  return gpu != NULL && strcmp(gpu, "none") == 0;
}

int cuInit(unsigned flags) { return flags ? 1 : none() ? 100 : 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuGetErrorString(int code, const char **text) {
  *text = code == 2 ? "out of memory" : code == 100 ? "no CUDA-capable device is detected"
        : code == 101 ? "invalid device ordinal" : NULL;
  return *text == NULL;
}
int cuDeviceGet(int *device, int number) { *device = number + 40; return number ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) {
  snprintf(name, length, "NVIDIA Stand-in"); return device != 40;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = 150754820096ull; return device != 40; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1; return device != 40;
}
int cuDeviceGetPCIBusId(char *bus, int length, int device) {
  snprintf(bus, length, "0000:1B:00.0"); return device != 40;
}
int cuDevicePrimaryCtxRetain(handle *context, int device) { *context = (handle)0x7f00000000c0; return device != 40; }
int cuCtxSetCurrent(handle context) { return context != (handle)0x7f00000000c0; }
int cuCtxSynchronize(void) { return 0; }
int cuMemAlloc_v2(address *where, size_t size) {
  if (size > 1ull << 30) return 2;
  void *memory = mmap((void *)0x7e0000000000, size + 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *where = (address)memory;
  return memory == MAP_FAILED;
}
int cuMemFree_v2(address where) { return where < 1ull << 32; }
int cuMemcpyHtoD_v2(address to, const void *from, size_t size) { memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, address from, size_t size) { memcpy(to, (void *)from, size); return 0; }
int cuStreamCreate(handle *stream, unsigned flags) { *stream = (handle)0x7e1234567890; return flags != 1; }
int cuStreamSynchronize(handle stream) { return stream != (handle)0x7e1234567890; }
int cuStreamDestroy_v2(handle stream) { return stream != (handle)0x7e1234567890; }
int cuStreamBeginCapture_v2(handle stream, int mode) { return stream != (handle)0x7e1234567890 || mode != 1; }
int cuStreamEndCapture(handle stream, handle *graph) {
  *graph = (handle)0x7e00000000aa; return stream != (handle)0x7e1234567890;
}
int cuGraphInstantiateWithFlags(handle *executable, handle graph, address flags) {
  *executable = (handle)0x7e00000000bb; return graph != (handle)0x7e00000000aa || flags;
}
int cuGraphLaunch(handle executable, handle stream) {
  return executable != (handle)0x7e00000000bb || stream != (handle)0x7e1234567890;
}
int cuGraphExecDestroy(handle executable) { return executable != (handle)0x7e00000000bb; }
int cuGraphDestroy(handle graph) { return graph != (handle)0x7e00000000aa; }

static const handle GPU = (handle)0x7d00000000dd;

int nvmlInit_v2(void) { return none() ? 9 : 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "570.86.15"); return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, handle *gpu) {
  *gpu = GPU; return strcmp(bus, "0000:1B:00.0") ? 6 : 0;
}
int nvmlDeviceGetTemperature(handle gpu, int sensor, unsigned *celsius) {
  *celsius = 61; return gpu != GPU || sensor;
}
int nvmlDeviceGetClockInfo(handle gpu, int clock, unsigned *mhz) { *mhz = 1755; return gpu != GPU || clock != 1; }
int nvmlDeviceGetMaxClockInfo(handle gpu, int clock, unsigned *mhz) { *mhz = 1980; return gpu != GPU || clock != 1; }
int nvmlDeviceGetApplicationsClock(handle gpu, int clock, unsigned *mhz) { return 3; } /* not supported */
int nvmlDeviceGetCurrentClocksThrottleReasons(handle gpu, address *reasons) {
  *reasons = 0x0000000000000048ull; return gpu != GPU;
}
int nvmlDeviceGetPersistenceMode(handle gpu, int *mode) { *mode = 1; return gpu != GPU; }
int nvmlDeviceGetEnforcedPowerLimit(handle gpu, unsigned *milliwatts) { *milliwatts = 700000; return gpu != GPU; }
int nvmlDeviceGetTotalEnergyConsumption(handle gpu, address *millijoules) {
  *millijoules = 5000000000123ull; return gpu != GPU; /* more than 32 bits */
}
