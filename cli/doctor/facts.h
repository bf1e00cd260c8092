// cli/doctor/facts.h: what `fathom doctor` knows of a machine. gather.h reads these facts from the
// system; doctor_rules.h judges them, so that tests can judge machines that do not exist. An absent
// optional means that the fact could not be read. Plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fathom::client {

// The CUDA part of this build.
struct BuildFacts {
  bool cuda = false;
  int32_t runtime_version = 0;      // 13000: CUDA 13.0.
  std::vector<int32_t> native_sms;  // Compute capabilities with machine code: {80, 90}.
  int32_t ptx_sm = 0;               // Later devices compile this one's code; 0: none.
};

struct GpuFacts {
  std::string name;
  int32_t sm = 0;  // Compute capability: 80, 90.
  int64_t memory_bytes = 0;
  std::optional<int64_t> used_bytes;  // By all processes.
};

struct DriverFacts {
  bool device_files = false;   // /dev/nvidiactl exists.
  std::string kernel_version;  // Of the kernel module: "580.95.05"; "": it is not loaded.
  bool library = false;        // libcuda.so.1 was opened.
  std::string library_error;
  int32_t cuda_version = 0;    // The newest CUDA that the driver supports: 13000.
  int32_t init_error = 0;      // Of cuInit; 0: none.
  std::string init_message;    // Its name: "CUDA_ERROR_SYSTEM_NOT_READY".
  bool timed_out = false;      // The driver did not answer in time; the fields below are empty.
  std::vector<GpuFacts> gpus;  // Those that CUDA_VISIBLE_DEVICES leaves.
  std::vector<std::pair<int32_t, int32_t>> no_peers;  // Pairs that cannot map each other's memory.
};

struct NcclFacts {
  bool library = false;
  std::string error;    // Why libnccl.so.2 could not be opened.
  int32_t version = 0;  // 22809: 2.28.9.
};

struct SharedMemoryFacts {
  bool exists = false;
  bool writable = false;
  std::string error;  // Why it is not writable.
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
};

struct PortFacts {
  int32_t port = 0;
  std::string flag;    // That chooses another one.
  std::string error;   // Why it cannot be listened on; "": it is free.
  bool taken = false;  // Another process listens there.
  int32_t holder_pid = 0;
  std::string holder;  // The name of that process; "": unknown.
};

struct ClockFacts {
  std::string source;                // The kernel's: "tsc".
  bool goes_backwards = false;       // The monotonic clock, in a short test.
  std::optional<bool> synchronized;  // By NTP or PTP.
};

struct KernelFacts {
  std::optional<int64_t> somaxconn, threads_max, pid_max, max_map_count, overcommit_memory;
  std::string huge_pages;  // "always", "madvise", "never"; "": unknown.
};

struct DoctorFacts {
  BuildFacts build;
  DriverFacts driver;
  NcclFacts nccl;
  bool infiniband = false;

  int32_t cpus = 0;                       // Of the machine and the affinity.
  std::optional<double> cpu_quota;        // In CPUs.
  std::vector<std::string> instructions;  // "avx2", "avx512f", ...
  std::optional<int64_t> memory_available_bytes;
  std::optional<int64_t> cgroup_memory_bytes;
  std::optional<int64_t> cgroup_threads_left;

  SharedMemoryFacts shared_memory;
  // Hard limits (the soft one of the address space); absent: unlimited.
  std::optional<int64_t> descriptors, locked_memory, address_space_bytes, processes;
  std::vector<PortFacts> ports;
  ClockFacts clock;
  KernelFacts kernel;

  std::vector<std::string> proxies;         // The names of set variables, without their values.
  bool proxies_spare_this_machine = false;  // no_proxy has 127.0.0.1 or localhost.
  std::vector<std::string> fathom_variables, nccl_variables;  // "FATHOM_PORT", ...
  std::optional<std::string> visible_devices;                 // CUDA_VISIBLE_DEVICES.

  std::string run_folder;        // Where `fathom serve` would make its run directory.
  std::string run_folder_error;  // Why nothing can be written there.
  int64_t run_folder_free_bytes = 0;
};

// What the user wants to start.
struct DoctorWish {
  std::string device = "auto";  // "cpu", "cuda".
  int32_t workers = 1;
};

}  // namespace fathom::client
