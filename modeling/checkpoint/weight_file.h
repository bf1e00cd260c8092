// modeling/checkpoint/weight_file.h: a file of weights that is read by offset. Reads, not a
// mapping: a file that shrinks or a disk that fails is a Status, not a signal. Thread: reads may
// run at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fathom::worker {

class WeightFile {
 public:
  // NOT_FOUND when it cannot be opened or is no file.
  static absl::StatusOr<WeightFile> Open(const std::filesystem::path& path);
  ~WeightFile();
  WeightFile(WeightFile&& other) noexcept;
  WeightFile& operator=(WeightFile&&) = delete;

  const std::string& name() const { return name_; }  // Without the folder.
  uint64_t bytes() const { return bytes_; }

  // Exactly `count` bytes from `offset`. DATA_LOSS when the file does not give them.
  absl::Status Read(uint64_t offset, std::byte* target, size_t count) const;
  // Neighbouring bytes from `offset` into several places, in order. Errors are Read's.
  struct Place {
    std::byte* target = nullptr;
    size_t bytes = 0;
  };
  absl::Status ReadScattered(uint64_t offset, std::span<const Place> places) const;
  absl::StatusOr<std::string> ReadText(uint64_t offset, size_t count) const;

 private:
  WeightFile(int descriptor, std::string name, uint64_t bytes);
  absl::Status Unread(uint64_t offset, size_t count, int error) const;

  int descriptor_;
  std::string name_;
  uint64_t bytes_;
};

}  // namespace fathom::worker
