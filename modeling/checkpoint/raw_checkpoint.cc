#include "modeling/checkpoint/raw_checkpoint.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "common/json.h"
#include "common/status.h"
#include "modeling/checkpoint/checkpoint_impl.h"
#include "modeling/checkpoint/file_checkpoint.h"

namespace fathom {
namespace {

constexpr JsonLimits kManifestLimits = {
    .bytes_max = 64 << 20, .depth_max = 5, .values_max = 4'000'000};
constexpr int64_t kAlignmentMin = 64, kAlignmentMax = 1 << 21;

bool ReadShape(const JsonValue& value, std::vector<int64_t>& shape) {
  const JsonValue::Array* items = value.AsArray();
  if (items == nullptr || items->empty() || items->size() > kTensorDimensionsMax) return false;
  for (const JsonValue& item : *items) {
    const int64_t* count = item.AsInt();
    if (count == nullptr || *count < 0) return false;
    shape.push_back(*count);
  }
  return true;
}

absl::StatusOr<SafetensorsTensor> ReadTensor(const JsonValue& value) {
  const JsonValue::Object* fields = value.AsObject();
  if (fields == nullptr || fields->size() != 4) {
    return Invalid("a tensor is {}; expected name, dtype, shape and offset", value.Brief());
  }
  SafetensorsTensor tensor;
  for (const auto& [key, field] : *fields) {
    bool good = false;
    if (key == "name" || key == "dtype") {
      good = field.AsString() != nullptr && !field.AsString()->empty();
      if (good) (key == "name" ? tensor.name : tensor.dtype) = *field.AsString();
    } else if (key == "shape") {
      good = ReadShape(field, tensor.shape);
    } else if (key == "offset") {
      good = field.AsInt() != nullptr && *field.AsInt() >= 0;
      if (good) tensor.begin = static_cast<uint64_t>(*field.AsInt());
    }
    if (!good) return Invalid("a tensor is {}: {} is not valid", value.Brief(), key);
  }
  FATHOM_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensor));
  if (__builtin_add_overflow(tensor.begin, bytes, &tensor.end)) {
    return Invalid("tensor {}: offset {} and {} bytes overflow", tensor.name, tensor.begin, bytes);
  }
  return tensor;
}

absl::Status CheckPlaces(const std::vector<SafetensorsTensor>& tensors, uint64_t alignment,
                         uint64_t file_bytes) {
  std::set<std::string_view> names;
  uint64_t end = 0;
  for (const SafetensorsTensor& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      return Invalid("tensor {} is listed twice; keep one of them", tensor.name);
    }
    const uint64_t next = (end + alignment - 1) / alignment * alignment;
    if (tensor.begin != next) {
      return Invalid(
          "tensor {} begins at byte {}, but {} is the first multiple of the alignment after the "
          "one "
          "before: gap or overlap",
          tensor.name, tensor.begin, next);
    }
    if (tensor.end > file_bytes) {
      return DataLoss(
          "tensor {} ends at byte {}, but {} has only {}: it was cut short; copy it again",
          tensor.name, tensor.end, kRawFile, file_bytes);
    }
    end = tensor.end;
  }
  if (end != file_bytes) {
    return Invalid("{} bytes after the last tensor in {}", file_bytes - end, kRawFile);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SafetensorsTensor>> ParseRawManifest(std::string_view json,
                                                                uint64_t file_bytes) {
  FATHOM_ASSIGN_OR_RETURN(const JsonValue root, ParseJson(json, kManifestLimits));
  int64_t alignment = 0;
  const JsonValue::Array* items = nullptr;
  const JsonValue::Object* keys = root.AsObject();
  if (keys == nullptr) return Invalid("is {}; expected an object", root.Brief());
  for (const auto& [key, value] : *keys) {
    if (key == "alignment") {
      alignment = value.AsInt() != nullptr ? *value.AsInt() : -1;
    } else if (key == "tensors") {
      items = value.AsArray();
    } else {
      return Invalid("the key \"{}\" is not known here; expected alignment and tensors", key);
    }
  }
  if (alignment < kAlignmentMin || alignment > kAlignmentMax ||
      (alignment & (alignment - 1)) != 0) {
    return Invalid("alignment must be a power of 2 from {} to {}, e.g. 4096", kAlignmentMin,
                   kAlignmentMax);
  }
  if (items == nullptr) return Invalid("has no array tensors");
  std::vector<SafetensorsTensor> tensors;
  for (const JsonValue& item : *items) {
    FATHOM_ASSIGN_OR_RETURN(SafetensorsTensor tensor, ReadTensor(item));
    tensors.push_back(std::move(tensor));
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  FATHOM_RETURN_IF_ERROR(CheckPlaces(tensors, static_cast<uint64_t>(alignment), file_bytes));
  return tensors;
}

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenRaw(const std::filesystem::path& folder,
                                                    const ModelConfig& config) {
  FATHOM_ASSIGN_OR_RETURN(const WeightFile manifest, WeightFile::Open(folder / kRawManifest));
  if (manifest.bytes() > kManifestLimits.bytes_max) {
    return Invalid("{}: {} bytes; the limit is {}", kRawManifest, manifest.bytes(),
                   kManifestLimits.bytes_max);
  }
  FATHOM_ASSIGN_OR_RETURN(std::string text, manifest.ReadText(0, manifest.bytes()));
  FATHOM_ASSIGN_OR_RETURN(WeightFile weights, WeightFile::Open(folder / kRawFile));
  auto tensors = ParseRawManifest(text, weights.bytes());
  if (!tensors.ok()) return Annotate(tensors.status(), kRawManifest);
  CheckpointFiles files;
  files.headers.push_back({weights.name(), *std::move(tensors)});
  files.header_texts.push_back(std::move(text));
  files.files.push_back(std::move(weights));
  return OpenFiles(config, std::move(files), nullptr);
}

}  // namespace fathom
