// modeling/checkpoint/weight_pieces.h: the transfer of weights from files to the GPU, cut into
// pieces of some MiB that any thread may process. A piece is contiguous rows of a region of the
// arena. It is read into one buffer in its final row order and converted if the stored type is not
// the wanted one. One read call covers all rows that are contiguous in the file. No CUDA here. Any
// thread; reading is const.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/device_weight_layout.h"

namespace fathom {

struct WeightPiece {
  const WeightRegion* region = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
};

// A piece in a buffer: the wanted columns of row r are the `width` bytes at `offset` + r * `pitch`.
struct StagedPiece {
  int64_t offset = 0;
  int64_t pitch = 0;
  int64_t width = 0;
};

class WeightPieces {
 public:
  // `layout` and `checkpoint` outlive this object. REQUIRES: checkpoint->Locate finds every tensor.
  WeightPieces(const DeviceWeightLayout* layout, const Checkpoint* checkpoint, int64_t piece_bytes);

  const std::vector<WeightPiece>& pieces() const { return pieces_; }
  // The buffer size that `Read` needs for the largest piece.
  int64_t staging_bytes() const { return staging_bytes_; }
  int64_t scratch_bytes() const { return scratch_bytes_; }

  // Reads a piece into `staging`; `scratch` is used for conversion. Adds the time of reading and of
  // conversion to the counters, in microseconds measured with `now`. Errors: DATA_LOSS if a file
  // does not give its bytes, INVALID_ARGUMENT for a value that the wanted type cannot hold.
  struct Times {
    int64_t read_us = 0;
    int64_t convert_us = 0;
  };
  absl::StatusOr<StagedPiece> Read(const WeightPiece& piece, std::byte* staging, std::byte* scratch,
                                   Times* times) const;

  // The error that the value at (row, column) of a region is not finite; it names the place in the
  // file.
  absl::Status NotFinite(const WeightRegion& region, int64_t row, int64_t column) const;

 private:
  StoredType TypeOf(const WeightPart& part) const;
  bool Converts(const WeightRegion& region) const;
  absl::Status ReadVector(const WeightPiece& piece, std::byte* staging, std::byte* scratch) const;
  absl::Status ReadRows(const WeightPiece& piece, std::byte* target) const;
  absl::Status Convert(const WeightPiece& piece, const std::byte* rows, std::byte* target) const;

  const Checkpoint* const checkpoint_;
  std::vector<WeightPiece> pieces_;
  int64_t staging_bytes_ = 0;
  int64_t scratch_bytes_ = 0;
};

}  // namespace fathom
