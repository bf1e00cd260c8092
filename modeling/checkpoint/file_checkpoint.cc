#include "modeling/checkpoint/file_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/finite.h"
#include "modeling/checkpoint/model_digest.h"

namespace fathom {
namespace {

constexpr uint64_t kDigestBytes = 4096;     // Read from each tensor for the digest of the weights.
constexpr int64_t kScratchBytes = 4 << 20;  // For whole rows before their columns are copied.

// The digest of the weights of docs/ARCHITECTURE.md, "Fingerprints". It does not read every byte,
// but a tensor that was replaced by another one changes it.
absl::StatusOr<std::string> DigestOf(const std::string& config_text, const CheckpointFiles& files) {
  DigestBuilder digest;
  digest.Add(config_text);
  for (size_t i = 0; i < files.files.size(); ++i) {
    const WeightFile& file = files.files[i];
    digest.Add(file.name());
    digest.Add(file.bytes());
    digest.Add(files.header_texts[i]);
    for (const SafetensorsTensor& tensor : files.headers[i].tensors) {
      const uint64_t count = std::min(kDigestBytes, tensor.end - tensor.begin);
      FATHOM_ASSIGN_OR_RETURN(const std::string head, file.ReadText(tensor.begin, count));
      digest.Add(head);
    }
  }
  return digest.Finish();
}

class FileCheckpoint : public Checkpoint {
 public:
  FileCheckpoint(CheckpointFiles files, CheckedTensors tensors, std::string digest)
      : files_(std::move(files)), tensors_(std::move(tensors)), digest_(std::move(digest)) {}

  StoredType stored_type() const override { return tensors_.type; }
  const std::string& weights_digest() const override { return digest_; }

  absl::StatusOr<HostTensor> Load(std::string_view name, const TensorSlice& slice) const override {
    const TensorPlace& place = Find(name);
    const SafetensorsTensor& tensor = *place.tensor;
    const WeightFile& file = files_.files[place.shard];
    const int64_t tensor_cols = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
    FATHOM_CHECK(slice.row_begin >= 0 && slice.row_begin < slice.row_end &&
                 slice.row_end <= tensor.shape[0] && slice.col_begin >= 0 &&
                 slice.col_begin < slice.col_end && slice.col_end <= tensor_cols);
    HostTensor target(place.type, slice.rows(), slice.cols());
    FATHOM_RETURN_IF_ERROR(ReadSlice(file, tensor.begin, tensor_cols, slice, target));
    const auto bad = FindNonFinite(target.type(), target.data(), target.rows() * target.cols());
    if (!bad) return target;
    return DataLoss(
        "{}: tensor {} has a value that is not finite at [{}, {}]; the file is "
        "damaged: copy it again",
        file.name(), name, slice.row_begin + *bad / slice.cols(),
        slice.col_begin + *bad % slice.cols());
  }

  std::optional<FileRange> Locate(std::string_view name) const override {
    const TensorPlace& place = Find(name);
    return FileRange{&files_.files[place.shard], place.type, place.tensor->begin,
                     place.tensor->end - place.tensor->begin};
  }

 private:
  const TensorPlace& Find(std::string_view name) const {
    const auto found = tensors_.places.find(name);
    FATHOM_CHECK(found != tensors_.places.end(), "{}", name);
    return found->second;
  }

  static absl::Status ReadSlice(const WeightFile& file, uint64_t begin, int64_t tensor_cols,
                                const TensorSlice& slice, HostTensor& target) {
    const int64_t item = BytesOf(target.type());
    const int64_t row_bytes = tensor_cols * item;
    const auto offset = [&](int64_t row) {
      return begin + static_cast<uint64_t>(row) * static_cast<uint64_t>(row_bytes);
    };
    if (slice.cols() == tensor_cols) {
      return file.Read(offset(slice.row_begin), target.data(), static_cast<size_t>(target.bytes()));
    }
    const int64_t rows_at_once = std::max<int64_t>(1, kScratchBytes / row_bytes);
    std::vector<std::byte> scratch(static_cast<size_t>(rows_at_once * row_bytes));
    const int64_t slice_row_bytes = slice.cols() * item;
    std::byte* next = target.data();
    for (int64_t row = slice.row_begin; row < slice.row_end; row += rows_at_once) {
      const int64_t rows = std::min(rows_at_once, slice.row_end - row);
      FATHOM_RETURN_IF_ERROR(
          file.Read(offset(row), scratch.data(), static_cast<size_t>(rows * row_bytes)));
      for (int64_t i = 0; i < rows; ++i, next += slice_row_bytes) {
        std::memcpy(next, scratch.data() + i * row_bytes + slice.col_begin * item,
                    static_cast<size_t>(slice_row_bytes));
      }
    }
    return absl::OkStatus();
  }

  const CheckpointFiles files_;
  const CheckedTensors tensors_;  // Points into files_.
  const std::string digest_;
};

// An LM head that is stored beside tied embeddings must equal the embedding; otherwise config.json
// is wrong.
absl::Status CheckSpareHead(const ModelSpec& spec, const CheckpointFiles& files,
                            const CheckedTensors& tensors) {
  if (!tensors.spare_head) return absl::OkStatus();
  const TensorPlace& head = *tensors.spare_head;
  const TensorPlace& embedding = tensors.places.find(spec.embedding.name)->second;
  const uint64_t bytes = head.tensor->end - head.tensor->begin;
  for (uint64_t at = 0; at < bytes; at += kScratchBytes) {
    const size_t count = std::min<uint64_t>(kScratchBytes, bytes - at);
    FATHOM_ASSIGN_OR_RETURN(const std::string a,
                            files.files[head.shard].ReadText(head.tensor->begin + at, count));
    FATHOM_ASSIGN_OR_RETURN(const std::string b, files.files[embedding.shard].ReadText(
                                                     embedding.tensor->begin + at, count));
    if (a != b) {
      return Invalid(
          "{}: tensor {} differs from the embedding, but config.json says "
          "tie_word_embeddings=true; set it to false if the weights are right",
          files.files[head.shard].name(), *spec.spare_head);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenFiles(const ModelConfig& config,
                                                      CheckpointFiles files,
                                                      const WeightMap* index) {
  const ModelSpec spec = SpecOf(config);
  FATHOM_ASSIGN_OR_RETURN(CheckedTensors tensors,
                          CheckTensors(spec, config.stored_type, files.headers, index));
  FATHOM_RETURN_IF_ERROR(CheckSpareHead(spec, files, tensors));
  FATHOM_ASSIGN_OR_RETURN(std::string digest, DigestOf(config.source.text, files));
  return std::make_unique<FileCheckpoint>(std::move(files), std::move(tensors), std::move(digest));
}

}  // namespace fathom
