// cli/progress_bar.h: a progress bar on stderr, drawn only on a terminal, by a thread of its own.
// Thread: any thread may call Add; the destructor removes the bar.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace fathom::client {

class ProgressBar {
 public:
  // `total` units of `label`, e.g. "tokens".
  ProgressBar(int64_t total, std::string label);
  ~ProgressBar();
  void Add(int64_t units) { done_ += units; }

 private:
  void Draw(double elapsed_s) const;

  const int64_t total_;
  const std::string label_;
  std::atomic<int64_t> done_ = 0;
  std::jthread thread_;  // Last, because it uses the members above.
};

}  // namespace fathom::client
