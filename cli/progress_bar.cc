#include "cli/progress_bar.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "common/output.h"

namespace fathom::client {

ProgressBar::ProgressBar(int64_t total, std::string label)
    : total_(std::max<int64_t>(total, 1)), label_(std::move(label)) {
  if (isatty(STDERR_FILENO) == 0) return;
  thread_ = std::jthread([this](const std::stop_token& stop) {
    const auto begin = std::chrono::steady_clock::now();
    std::mutex mutex;
    std::condition_variable_any ended;
    std::unique_lock lock(mutex);
    while (!stop.stop_requested()) {
      Draw(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
      ended.wait_for(lock, stop, std::chrono::milliseconds(100), [] { return false; });
    }
  });
}

ProgressBar::~ProgressBar() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
  WriteDiagnostic("\r\x1b[K");
}

void ProgressBar::Draw(double elapsed_s) const {
  constexpr int kWidth = 32;
  const int64_t done = std::min(done_.load(), total_);
  const int filled = static_cast<int>(done * kWidth / total_);
  WriteDiagnostic(fmt::format("\r\x1b[K[{:#<{}}{:.<{}}] {:3} %  {}/{} {}  {:.0f} s", "", filled, "",
                              kWidth - filled, done * 100 / total_, done, total_, label_,
                              elapsed_s));
}

}  // namespace fathom::client
