// modeling/checkpoint/weight_file.h: a file of weights that is read by offset. It is read and not
// mapped, so that a file that shrinks or a disk that fails gives a Status and not a signal. Thread:
// reads may run at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fathom {

class WeightFile {
 public:
  // NOT_FOUND if the file cannot be opened or is not a regular file.
  static absl::StatusOr<WeightFile> Open(const std::filesystem::path& path);
  ~WeightFile();
  WeightFile(WeightFile&& other) noexcept;
  WeightFile& operator=(WeightFile&&) = delete;

  const std::string& name() const { return name_; }  // Without the folder.
  uint64_t bytes() const { return bytes_; }

  // Reads exactly `count` bytes from `offset`. DATA_LOSS if the file does not give them.
  absl::Status Read(uint64_t offset, std::byte* target, size_t count) const;
  // Reads contiguous bytes from `offset` into several places, in order. Errors as in Read.
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

}  // namespace fathom
