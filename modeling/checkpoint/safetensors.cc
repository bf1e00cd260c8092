#include "modeling/checkpoint/safetensors.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/json.h"
#include "common/status.h"

namespace fathom {
namespace {

constexpr JsonLimits kHeaderLimits = {
    .bytes_max = kSafetensorsHeaderBytesMax, .depth_max = 3, .values_max = 4'000'000};

// 0: the format has no such dtype.
uint64_t DtypeBytes(std::string_view dtype) {
  static constexpr std::pair<std::string_view, uint64_t> kTable[] = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1},
      {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},
      {"U32", 4},  {"F32", 4}, {"F64", 8}, {"I64", 8},     {"U64", 8},
  };
  for (const auto& [name, bytes] : kTable) {
    if (name == dtype) return bytes;
  }
  return 0;
}

// Reads a JSON array of at most `count_max` integers >= 0; returns false if the value is anything
// else.
bool ReadCounts(const JsonValue& value, size_t count_max, std::vector<int64_t>& counts) {
  const JsonValue::Array* items = value.AsArray();
  if (items == nullptr || items->size() > count_max) return false;
  for (const JsonValue& item : *items) {
    const int64_t* count = item.AsInt();
    if (count == nullptr || *count < 0) return false;
    counts.push_back(*count);
  }
  return true;
}

absl::Status CheckMetadata(const JsonValue& value) {
  bool texts = value.AsObject() != nullptr;
  if (texts) {
    for (const auto& [key, text] : *value.AsObject()) texts &= text.AsString() != nullptr;
  }
  if (!texts) return Invalid("__metadata__ is {}; expected an object of strings", value.Brief());
  return absl::OkStatus();
}

// `data_begin` is the position in the file from which offsets count.
absl::StatusOr<SafetensorsTensor> ReadTensor(const std::string& name, const JsonValue& value,
                                             uint64_t data_begin, uint64_t data_bytes) {
  const JsonValue::Object* fields = value.AsObject();
  if (fields == nullptr || fields->size() != 3) {
    return Invalid("tensor {} is {}; expected dtype, shape and data_offsets", name, value.Brief());
  }
  SafetensorsTensor tensor{.name = name};
  std::vector<int64_t> offsets;
  for (const auto& [key, field] : *fields) {
    const bool good = key == "dtype"   ? field.AsString() != nullptr
                      : key == "shape" ? ReadCounts(field, kTensorDimensionsMax, tensor.shape)
                      : key == "data_offsets" ? ReadCounts(field, 2, offsets)
                                              : false;
    if (!good) return Invalid("tensor {}: {} = {} is not valid", name, key, field.Brief());
    if (key == "dtype") tensor.dtype = *field.AsString();
  }
  FATHOM_ASSIGN_OR_RETURN(const uint64_t bytes, TensorBytes(tensor));
  if (offsets.size() != 2 || offsets[1] < offsets[0]) {
    return Invalid("tensor {}: data_offsets {} are not a range", name, ShapeText(offsets));
  }
  tensor.begin = static_cast<uint64_t>(offsets[0]);
  tensor.end = static_cast<uint64_t>(offsets[1]);
  if (tensor.end - tensor.begin != bytes) {
    return Invalid("tensor {}: data_offsets hold {} bytes; {} {} takes {}", name,
                   tensor.end - tensor.begin, tensor.dtype, ShapeText(tensor.shape), bytes);
  }
  if (tensor.end > data_bytes) {
    return DataLoss(
        "tensor {} ends at byte {} of the data, but the file has only {}: it was cut short; copy "
        "it again",
        name, tensor.end, data_bytes);
  }
  tensor.begin += data_begin;
  tensor.end += data_begin;
  return tensor;
}

}  // namespace

absl::StatusOr<uint64_t> SafetensorsHeaderBytes(std::string_view prefix, uint64_t file_bytes) {
  if (prefix.size() < kSafetensorsPrefixBytes) {
    return DataLoss("{} bytes are no safetensors file; copy it again", prefix.size());
  }
  uint64_t bytes = 0;
  for (size_t i = kSafetensorsPrefixBytes; i-- > 0;) {
    bytes = bytes << 8 | static_cast<uint8_t>(prefix[i]);
  }
  if (bytes > kSafetensorsHeaderBytesMax) {
    return Invalid(
        "its first 8 bytes promise a header of {} bytes; the limit is {}: not a "
        "safetensors file, or a damaged one",
        bytes, kSafetensorsHeaderBytesMax);
  }
  if (bytes > file_bytes - kSafetensorsPrefixBytes) {
    return DataLoss(
        "a header of {} bytes, but the file has only {}: it was cut short; copy it "
        "again",
        bytes, file_bytes);
  }
  return bytes;
}

absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensorsHeader(std::string_view header,
                                                                      uint64_t file_bytes) {
  const uint64_t data_begin = kSafetensorsPrefixBytes + header.size();
  FATHOM_CHECK(data_begin <= file_bytes);
  const size_t last = header.find_last_not_of(' ');
  if (header.empty() || header.front() != '{' || header[last] != '}') {
    return Invalid("the header is no JSON object padded with spaces");
  }
  auto root = ParseJson(header, kHeaderLimits);
  if (!root.ok()) return Annotate(root.status(), "the header");
  std::vector<SafetensorsTensor> tensors;
  for (const auto& [name, value] : *root->AsObject()) {
    if (name == "__metadata__") {
      FATHOM_RETURN_IF_ERROR(CheckMetadata(value));
      continue;
    }
    FATHOM_ASSIGN_OR_RETURN(SafetensorsTensor tensor,
                            ReadTensor(name, value, data_begin, file_bytes - data_begin));
    tensors.push_back(std::move(tensor));
  }
  std::stable_sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t next = data_begin;
  for (const SafetensorsTensor& tensor : tensors) {
    if (tensor.begin != next) {
      return Invalid(
          "tensor {} begins at byte {} of the data, the one before it ends at {}: gap "
          "or overlap",
          tensor.name, tensor.begin - data_begin, next - data_begin);
    }
    next = tensor.end;
  }
  if (next != file_bytes) {
    return Invalid("{} bytes after the last tensor", file_bytes - next);
  }
  return tensors;
}

absl::StatusOr<uint64_t> TensorBytes(const SafetensorsTensor& tensor) {
  uint64_t bytes = DtypeBytes(tensor.dtype);
  if (bytes == 0) return Invalid("tensor {}: dtype \"{}\" is unknown", tensor.name, tensor.dtype);
  for (const int64_t count : tensor.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(count), &bytes)) {
      return Invalid("tensor {}: shape {} overflows", tensor.name, ShapeText(tensor.shape));
    }
  }
  return bytes;
}

std::string ShapeText(std::span<const int64_t> shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

}  // namespace fathom
