// A safetensors file: the tensors of an accepted header lie inside the file, without gap or
// overlap.
#include <algorithm>

#include "common/check.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint_check.h"
#include "modeling/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

namespace fathom {
namespace {

ModelConfig SmallConfig() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.layers = config.kv_heads = 1;
  config.heads = config.head_dim = 2;
  config.hidden = 4;
  config.ffn = config.vocab = 3;
  return config;
}

// A header whose tensors are the model's, F32.
std::string ValidHeader() {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  int64_t end = 0;
  for (const Parameter& spec : ExpectedTensors(SpecOf(SmallConfig()))) {
    const int64_t begin = end;
    end += spec.elements() * 4;
    header += ",\"" + spec.name + "\":{\"dtype\":\"F32\",\"shape\":" + ShapeText(spec.shape) +
              ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
  }
  return header + "}   ";
}

uint64_t ValidDataBytes() {
  uint64_t bytes = 0;
  for (const Parameter& spec : ExpectedTensors(SpecOf(SmallConfig()))) {
    bytes += static_cast<uint64_t>(spec.elements() * 4);
  }
  return bytes;
}

std::string ValidFile() {
  const std::string header = ValidHeader();
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(ValidDataBytes(), '\0');
}

void FuzzHeader(std::string_view header, uint64_t file_bytes) {
  auto tensors = ParseSafetensorsHeader(header, file_bytes);
  if (!tensors.ok()) return;
  uint64_t next = kSafetensorsPrefixBytes + header.size();
  for (const SafetensorsTensor& tensor : *tensors) {
    FATHOM_CHECK(tensor.begin == next && tensor.end >= next && tensor.end <= file_bytes);
    next = tensor.end;
  }
  FATHOM_CHECK(next == file_bytes);
  const std::vector<ShardHeader> shards = {{"model.safetensors", *std::move(tensors)}};
  const auto checked = CheckTensors(SpecOf(SmallConfig()), std::nullopt, shards, nullptr);
  if (!checked.ok()) return;
  FATHOM_CHECK(checked->places.size() == ExpectedTensors(SpecOf(SmallConfig())).size());
}

// Uses the input as a file, and as the header of a file with the right length and data.
void FuzzFile(std::string_view input) {
  FuzzHeader(input, kSafetensorsPrefixBytes + input.size() + ValidDataBytes());
  const size_t prefix = std::min<size_t>(input.size(), kSafetensorsPrefixBytes);
  const auto header_bytes = SafetensorsHeaderBytes(input.substr(0, prefix), input.size());
  if (!header_bytes.ok()) return;
  FATHOM_CHECK(*header_bytes + kSafetensorsPrefixBytes <= input.size());
  FuzzHeader(input.substr(kSafetensorsPrefixBytes, *header_bytes), input.size());
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::FuzzFile({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  return {fathom::ValidFile(), fathom::ValidHeader(), std::string("\x02\0\0\0\0\0\0\0{}", 10)};
}
