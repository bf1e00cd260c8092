#include "modeling/checkpoint/weight_pieces.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include "common/check.h"
#include "common/status.h"
#include "modeling/checkpoint/weight_convert.h"
#include "modeling/checkpoint/weight_file.h"

namespace fathom {
namespace {

constexpr int64_t kPairedTileRows = 16;  // kernels/cuda/linear/paired_rows.h: two groups of 8.

int64_t NowUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t TensorCols(const WeightPart& part) { return part.parameter.cols(); }

// Rows of one part that are contiguous both in the file and in the piece.
struct Run {
  const WeightPart* part = nullptr;
  int64_t source_row = 0;
  int64_t piece_row = 0;
  int64_t rows = 0;
};

// The runs of a piece, in the order of parts and their rows.
std::vector<Run> RunsOf(const WeightPiece& piece) {
  std::vector<Run> runs;
  for (int64_t row = 0; row < piece.rows; ++row) {
    const SourceRow source = SourceOf(*piece.region, piece.first_row + row);
    if (!runs.empty() && runs.back().part == source.part &&
        runs.back().source_row + runs.back().rows == source.row) {
      ++runs.back().rows;
    } else {
      runs.push_back({source.part, source.row, row, 1});
    }
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
    return std::tie(a.part, a.source_row) < std::tie(b.part, b.source_row);
  });
  return runs;
}

}  // namespace

WeightPieces::WeightPieces(const DeviceWeightLayout* layout, const Checkpoint* checkpoint,
                           int64_t piece_bytes)
    : checkpoint_(checkpoint) {
  for (const WeightRegion& region : layout->regions) {
    // The bytes of one row; for a vector, of its widest part.
    int64_t read_bytes = 0;
    for (const WeightPart& part : region.parts) {
      read_bytes = std::max(read_bytes, TensorCols(part) * BytesOf(TypeOf(part)));
    }
    const int64_t most_bytes = std::max(read_bytes, region.row_bytes());
    int64_t rows = std::max<int64_t>(1, piece_bytes / most_bytes);
    if (rows > kPairedTileRows) rows -= rows % kPairedTileRows;
    rows = std::min(rows, region.rows);
    for (int64_t row = 0; row < region.rows; row += rows) {
      pieces_.push_back({&region, row, std::min(rows, region.rows - row)});
    }
    const bool converts = Converts(region);
    staging_bytes_ = std::max(staging_bytes_, rows * (converts ? region.row_bytes() : read_bytes));
    if (converts) scratch_bytes_ = std::max(scratch_bytes_, rows * read_bytes);
  }
}

StoredType WeightPieces::TypeOf(const WeightPart& part) const {
  const auto range = checkpoint_->Locate(part.parameter.name);
  FATHOM_CHECK(range.has_value(), "{} is in no file", part.parameter.name);
  return range->type;
}

// All parts of a matrix have one type. A vector is converted if any of its parts needs it.
bool WeightPieces::Converts(const WeightRegion& region) const {
  return std::any_of(region.parts.begin(), region.parts.end(), [&](const WeightPart& part) {
    return DTypeOfStored(TypeOf(part)) != region.dtype;
  });
}

absl::Status WeightPieces::ReadRows(const WeightPiece& piece, std::byte* target) const {
  const int64_t row_bytes =
      TensorCols(piece.region->parts.front()) * BytesOf(TypeOf(piece.region->parts.front()));
  const std::vector<Run> runs = RunsOf(piece);
  std::vector<WeightFile::Place> places;
  for (size_t first = 0; first < runs.size();) {
    const WeightPart* part = runs[first].part;
    places.clear();
    size_t last = first;
    int64_t next_row = runs[first].source_row;
    for (; last < runs.size() && runs[last].part == part && runs[last].source_row == next_row;
         ++last) {
      places.push_back({target + runs[last].piece_row * row_bytes,
                        static_cast<size_t>(runs[last].rows * row_bytes)});
      next_row += runs[last].rows;
    }
    const auto range = checkpoint_->Locate(part->parameter.name);
    FATHOM_CHECK(range.has_value(), "{} is in no file", part->parameter.name);
    FATHOM_RETURN_IF_ERROR(range->file->ReadScattered(
        range->offset + static_cast<uint64_t>(runs[first].source_row * row_bytes), places));
    first = last;
  }
  return absl::OkStatus();
}

// The elements of a vector are read and widened run by run, because each part may have its own
// type.
absl::Status WeightPieces::ReadVector(const WeightPiece& piece, std::byte* staging,
                                      std::byte* scratch) const {
  for (const Run& run : RunsOf(piece)) {
    const auto range = checkpoint_->Locate(run.part->parameter.name);
    FATHOM_CHECK(range.has_value(), "{} is in no file", run.part->parameter.name);
    const int64_t element = BytesOf(range->type);
    FATHOM_RETURN_IF_ERROR(
        range->file->Read(range->offset + static_cast<uint64_t>(run.source_row * element), scratch,
                          static_cast<size_t>(run.rows * element)));
    const auto too_large =
        ConvertWeights(range->type, scratch, piece.region->dtype,
                       staging + run.piece_row * piece.region->row_bytes(), run.rows);
    FATHOM_CHECK(!too_large, "{} does not fit {}", run.part->parameter.name,
                 kernels::NameOf(piece.region->dtype));
  }
  return absl::OkStatus();
}

absl::Status WeightPieces::Convert(const WeightPiece& piece, const std::byte* rows,
                                   std::byte* target) const {
  const WeightRegion& region = *piece.region;
  const StoredType stored = TypeOf(region.parts.front());
  const int64_t tensor_cols = TensorCols(region.parts.front());
  const int64_t col_begin = region.parts.front().slice.col_begin;
  // If the rows are whole, all of them are converted in one step.
  const bool whole = tensor_cols == region.cols;
  const int64_t count = whole ? piece.rows * region.cols : region.cols;
  const int64_t steps = whole ? 1 : piece.rows;
  for (int64_t step = 0; step < steps; ++step) {
    const auto too_large =
        ConvertWeights(stored, rows + (step * tensor_cols + col_begin) * BytesOf(stored),
                       region.dtype, target + step * region.row_bytes(), count);
    if (!too_large) continue;
    const SourceRow source = SourceOf(region, piece.first_row + step + *too_large / region.cols);
    return Invalid("{}: tensor {} has a value at [{}, {}] that {} cannot hold; use --dtype {}",
                   checkpoint_->Locate(source.part->parameter.name)->file->name(),
                   source.part->parameter.name, source.row,
                   source.part->slice.col_begin + *too_large % region.cols,
                   kernels::NameOf(region.dtype),
                   region.dtype == kernels::DType::kF16 ? "bfloat16" : "float with --device cpu");
  }
  return absl::OkStatus();
}

absl::StatusOr<StagedPiece> WeightPieces::Read(const WeightPiece& piece, std::byte* staging,
                                               std::byte* scratch, Times* times) const {
  const WeightRegion& region = *piece.region;
  const bool converts = Converts(region);
  const int64_t begin = NowUs();
  if (converts && region.dtype == kernels::DType::kF32) {
    FATHOM_RETURN_IF_ERROR(ReadVector(piece, staging, scratch));
    times->read_us += NowUs() - begin;
    return StagedPiece{0, region.row_bytes(), region.row_bytes()};
  }
  FATHOM_RETURN_IF_ERROR(ReadRows(piece, converts ? scratch : staging));
  const int64_t read = NowUs();
  times->read_us += read - begin;
  if (converts) {
    FATHOM_RETURN_IF_ERROR(Convert(piece, scratch, staging));
    times->convert_us += NowUs() - read;
    return StagedPiece{0, region.row_bytes(), region.row_bytes()};
  }
  const int64_t element = BytesOf(TypeOf(region.parts.front()));
  return StagedPiece{region.parts.front().slice.col_begin * element,
                     TensorCols(region.parts.front()) * element, region.row_bytes()};
}

absl::Status WeightPieces::NotFinite(const WeightRegion& region, int64_t row,
                                     int64_t column) const {
  const SourceRow source = SourceOf(region, row);
  const std::string& name = source.part->parameter.name;
  const auto range = checkpoint_->Locate(name);
  FATHOM_CHECK(range.has_value(), "{} is in no file", name);
  return DataLoss(
      "{}: tensor {} has a value that is not finite at [{}, {}]; the file is damaged: copy it "
      "again",
      range->file->name(), name, source.row, source.part->slice.col_begin + column);
}

}  // namespace fathom
