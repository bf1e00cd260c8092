#include <dlfcn.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <thread>

#include "cli/doctor/gather.h"

namespace fathom::client {
namespace {

// The few functions of the driver and of NVML that are called, by their C interfaces, so that this
// program needs neither their headers nor the libraries.
using CuDevice = int;
struct NvmlMemory {
  unsigned long long total, free, used;
};
constexpr int kCuSmMajor = 75, kCuSmMinor = 76;  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*.
constexpr size_t kNameBytes = 256;

template <class F>
F* Symbol(void* library, const char* name) {
  return library == nullptr ? nullptr : reinterpret_cast<F*>(dlsym(library, name));
}

std::string LastDlError() {
  const char* const reason = dlerror();
  return reason != nullptr ? reason : "unknown";
}

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05  Tue ..." gives "580.95.05".
std::string KernelModuleVersion() {
  std::ifstream file("/proc/driver/nvidia/version");
  for (std::string word; file >> word;) {
    if (word.size() >= 5 && word[0] >= '0' && word[0] <= '9' &&
        word.find('.') != std::string::npos) {
      return word;
    }
  }
  return "";
}

class Cuda {
 public:
  explicit Cuda(void* library)
      : init_(Symbol<int(unsigned)>(library, "cuInit")),
        error_name_(Symbol<int(int, const char**)>(library, "cuGetErrorName")),
        version_(Symbol<int(int*)>(library, "cuDriverGetVersion")),
        count_(Symbol<int(int*)>(library, "cuDeviceGetCount")),
        device_(Symbol<int(CuDevice*, int)>(library, "cuDeviceGet")),
        name_(Symbol<int(char*, int, CuDevice)>(library, "cuDeviceGetName")),
        attribute_(Symbol<int(int*, int, CuDevice)>(library, "cuDeviceGetAttribute")),
        bytes_(Symbol<int(size_t*, CuDevice)>(library, "cuDeviceTotalMem_v2")),
        bus_id_(Symbol<int(char*, int, CuDevice)>(library, "cuDeviceGetPCIBusId")),
        peers_(Symbol<int(int*, CuDevice, CuDevice)>(library, "cuDeviceCanAccessPeer")) {}

  // Fills `driver`; returns the PCI ids of its GPUs.
  std::vector<std::string> Ask(DriverFacts* driver) const {
    if (init_ == nullptr || version_ == nullptr || count_ == nullptr || device_ == nullptr ||
        name_ == nullptr || attribute_ == nullptr || bytes_ == nullptr || bus_id_ == nullptr ||
        peers_ == nullptr) {
      driver->library = false;
      driver->library_error = "it has not the functions of a driver";
      return {};
    }
    version_(&driver->cuda_version);
    driver->init_error = init_(0);
    if (driver->init_error != 0) {
      const char* name = nullptr;
      if (error_name_ != nullptr) error_name_(driver->init_error, &name);
      driver->init_message = name != nullptr ? name : "an unknown error";
      return {};
    }
    int count = 0;
    count_(&count);
    std::vector<std::string> bus_ids;
    for (int i = 0; i < count; ++i) bus_ids.push_back(AskDevice(i, driver));
    for (int i = 0; i < count; ++i) {
      for (int j = 0; j < count; ++j) {
        int can = 0;
        if (i != j && (peers_(&can, i, j) != 0 || can == 0)) driver->no_peers.emplace_back(i, j);
      }
    }
    return bus_ids;
  }

 private:
  std::string AskDevice(int index, DriverFacts* driver) const {
    CuDevice device = 0;
    device_(&device, index);
    char name[kNameBytes] = {}, bus_id[kNameBytes] = {};
    name_(name, kNameBytes - 1, device);
    bus_id_(bus_id, kNameBytes - 1, device);
    int major = 0, minor = 0;
    attribute_(&major, kCuSmMajor, device);
    attribute_(&minor, kCuSmMinor, device);
    size_t bytes = 0;
    bytes_(&bytes, device);
    driver->gpus.push_back(
        {.name = name, .sm = major * 10 + minor, .memory_bytes = static_cast<int64_t>(bytes)});
    return bus_id;
  }

  int (*init_)(unsigned);
  int (*error_name_)(int, const char**);
  int (*version_)(int*);
  int (*count_)(int*);
  int (*device_)(CuDevice*, int);
  int (*name_)(char*, int, CuDevice);
  int (*attribute_)(int*, int, CuDevice);
  int (*bytes_)(size_t*, CuDevice);
  int (*bus_id_)(char*, int, CuDevice);
  int (*peers_)(int*, CuDevice, CuDevice);
};

// NVML knows the memory in use without a context of ours.
void AskNvml(const std::vector<std::string>& bus_ids, DriverFacts* driver) {
  void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  auto* const init = Symbol<int()>(library, "nvmlInit_v2");
  auto* const find = Symbol<int(const char*, void**)>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  auto* const memory = Symbol<int(void*, NvmlMemory*)>(library, "nvmlDeviceGetMemoryInfo");
  auto* const end = Symbol<int()>(library, "nvmlShutdown");
  if (init == nullptr || find == nullptr || memory == nullptr || end == nullptr) return;
  if (init() != 0) return;
  for (size_t i = 0; i < bus_ids.size(); ++i) {
    void* device = nullptr;
    NvmlMemory bytes = {};
    if (find(bus_ids[i].c_str(), &device) == 0 && memory(device, &bytes) == 0) {
      driver->gpus[i].used_bytes = static_cast<int64_t>(bytes.used);
    }
  }
  end();
}

DriverFacts AskDriver() {
  DriverFacts driver;
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  driver.library = library != nullptr;
  if (!driver.library) {
    driver.library_error = LastDlError();
    return driver;
  }
  AskNvml(Cuda(library).Ask(&driver), &driver);
  return driver;
}

NcclFacts AskNccl() {
  NcclFacts nccl;
  void* const library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    nccl.error = LastDlError();
    return nccl;
  }
  auto* const version = Symbol<int(int*)>(library, "ncclGetVersion");
  nccl.library = version != nullptr && version(&nccl.version) == 0;
  if (!nccl.library) nccl.error = "it has no ncclGetVersion";
  return nccl;
}

}  // namespace

void GatherGpus(int32_t timeout_s, DoctorFacts* facts) {
  struct Answers {
    DriverFacts driver;
    NcclFacts nccl;
  };
  // A driver that hangs keeps this thread for ever, so its state belongs to no frame of ours.
  auto promise = std::make_shared<std::promise<Answers>>();
  std::future<Answers> answers = promise->get_future();
  std::thread([promise] { promise->set_value({AskDriver(), AskNccl()}); }).detach();
  if (answers.wait_for(std::chrono::seconds(timeout_s)) == std::future_status::ready) {
    Answers got = answers.get();
    facts->driver = std::move(got.driver);
    facts->nccl = std::move(got.nccl);
  } else {
    facts->driver.timed_out = true;
  }
  std::error_code none;
  facts->driver.device_files = std::filesystem::exists("/dev/nvidiactl", none);
  facts->driver.kernel_version = KernelModuleVersion();
}

}  // namespace fathom::client
