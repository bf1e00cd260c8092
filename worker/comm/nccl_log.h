// worker/comm/nccl_log.h: what NCCL writes, in a file of bounded size (common/rotating_file.h), and
// its last lines for the error message of a communicator that fails. NCCL opens a pipe as its
// NCCL_DEBUG_FILE; a thread reads the pipe, so NCCL never waits for a disk. Thread: any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "common/rotating_file.h"
#include "common/status.h"

namespace fathom::worker {

class NcclLog {
 public:
  static constexpr size_t kTailLines = 6;
  static constexpr size_t kLineBytesMax = 1024;  // A longer line is divided.

  // The file and its predecessor PATH.1 have at most `bytes_max` bytes each. FAILED_PRECONDITION:
  // it cannot be written. UNAVAILABLE: no descriptors.
  static absl::StatusOr<std::unique_ptr<NcclLog>> Start(const std::string& path,
                                                        int64_t bytes_max = int64_t{16} << 20);
  // REQUIRES: NCCL no longer writes.
  ~NcclLog();
  NcclLog(const NcclLog&) = delete;
  NcclLog& operator=(const NcclLog&) = delete;

  // The value for NCCL_DEBUG_FILE, in this process.
  const std::string& nccl_path() const { return nccl_path_; }
  // "; the last lines of NCCL (PATH): one | two"; empty: it has written nothing. Waits at most 100
  // ms for lines that are in the pipe.
  std::string Tail() const;

 private:
  NcclLog(std::string path, std::unique_ptr<RotatingFile> file, int read_end, int write_end,
          int stop);
  void Run();
  void Take(std::string_view bytes);
  void TakeLine();

  const std::string path_;
  const std::unique_ptr<RotatingFile> file_;  // The reading thread's.
  const int read_end_;
  const int write_end_;
  const int stop_;  // An eventfd.
  const std::string nccl_path_;
  std::string partial_;       // The reading thread's.
  mutable std::mutex mutex_;  // Guards what follows.
  std::deque<std::string> tail_;
  std::thread thread_;  // The last member, because it uses all others.
};

// Starts the log of this process, which lives until the process ends. REQUIRES: it was not started.
absl::StatusOr<NcclLog*> StartNcclLog(const std::string& path);
// Tail of the log of this process; empty if it was not started.
std::string NcclLogTail();

}  // namespace fathom::worker
