// tests/modeling/model_files.h: model folders made by tests: small random models and rewritten
// copies of a bundled one. If a file cannot be read or written, the functions fail the test (they
// return no Status).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "modeling/checkpoint/checkpoint.h"
#include "modeling/config/model_config.h"

namespace fathom::testing {

// The bytes of a tensor as a file stores them.
struct StoredTensor {
  std::string name;
  std::string dtype;  // "BF16", ...
  std::vector<int64_t> shape;
  std::string bytes;
};

struct ModelFiles {
  std::string config;      // config.json.
  std::string generation;  // generation_config.json; empty: no such file.
  std::vector<StoredTensor> tensors;

  StoredTensor& Tensor(std::string_view name);
  void Remove(std::string_view name);
};

// A temporary folder that is removed at the end of the test.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

std::filesystem::path SourcePath(std::string_view path);    // A file or folder of this tree.
std::filesystem::path BundledModel(std::string_view name);  // models/<name>
std::string ReadFile(const std::filesystem::path& path);
void WriteFile(const std::filesystem::path& path, std::string_view bytes);

std::string TinyConfig();  // The config.json of fathom-tiny.
ModelConfig ParsedConfig(std::string_view json);
// The message of the refusal; if the text is accepted, the test fails and the result is empty.
std::string ConfigRefusal(std::string_view json);

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFolder(const std::filesystem::path& folder);
// The same for a folder.
std::string FolderRefusal(const std::filesystem::path& folder);

// A model of this configuration with random weights, F32.
ModelFiles RandomModel(std::string_view config, uint64_t seed);
// Llama of 2 layers, hidden 8, 2 heads, 1 kv head, ffn 12, vocab 16.
ModelFiles SmallModel(uint64_t seed);
// Arcee of 2 layers, hidden 32, 4 heads of 8, 2 kv heads, ffn 48, vocab 40, rope_theta 10000,
// rms_norm_eps 1e-5.
ModelFiles SmallArcee(uint64_t seed);
// All configurations and tensors of a folder.
ModelFiles ReadModel(const std::filesystem::path& folder);

// A safetensors file of these tensors.
std::string Safetensors(const std::vector<StoredTensor>& tensors);
// Writes config.json, generation_config.json and the tensors, in order: as model.safetensors
// (`files` 1), or as `files` shards of about equal count with an index. Other files of the folder
// are kept.
void WriteModel(const std::filesystem::path& folder, const ModelFiles& model, int files = 1);

// Sets `key` of a JSON object to the JSON `value`; an empty value removes the key.
std::string WithKey(std::string_view json, std::string_view key, std::string_view value);

// Stores all weights in another type, rounded to nearest even, and changes the configuration
// accordingly.
void Retype(ModelFiles& model, StoredType type);
// Removes the LM head and ties it to the embedding.
void Tie(ModelFiles& model);

// The values of BF16, F16 or F32 bytes.
std::vector<float> ToFloats(std::string_view dtype, std::string_view bytes);
std::string FromFloats(StoredType type, const std::vector<float>& values);

}  // namespace fathom::testing
