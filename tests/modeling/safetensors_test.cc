#include "modeling/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "common/status.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::HasSubstr;

// The same steps as in opening a file: prefix, then header.
absl::StatusOr<std::vector<SafetensorsTensor>> Parse(const std::string& file) {
  const size_t prefix = std::min<size_t>(file.size(), kSafetensorsPrefixBytes);
  FATHOM_ASSIGN_OR_RETURN(const uint64_t header_bytes,
                          SafetensorsHeaderBytes(file.substr(0, prefix), file.size()));
  return ParseSafetensorsHeader(file.substr(kSafetensorsPrefixBytes, header_bytes), file.size());
}

// A file with this header and `data_bytes` bytes of data.
std::string FileOf(const std::string& header, size_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(data_bytes, '\x01');
}

std::string Refusal(const std::string& file) {
  const auto tensors = Parse(file);
  EXPECT_FALSE(tensors.ok());
  return tensors.ok() ? "" : std::string(Message(tensors.status()));
}

bool Same(const std::vector<SafetensorsTensor>& a, const std::vector<SafetensorsTensor>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.name == y.name && x.dtype == y.dtype && x.shape == y.shape && x.begin == y.begin &&
           x.end == y.end;
  });
}

const std::string& SmallFile() {
  static const std::string file = testing::Safetensors({
      {"a", "BF16", {2, 3}, std::string(12, 'a')},
      {"b.weight", "F32", {5}, std::string(20, 'b')},
      {"c", "I8", {}, "c"},
      {"d", "F16", {0, 7}, ""},
  });
  return file;
}

TEST(Safetensors, ReadsTensorsByOffset) {
  const auto tensors = Parse(SmallFile());
  ASSERT_TRUE(tensors.ok()) << ToString(tensors.status());
  ASSERT_EQ(tensors->size(), 4u);
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[1].shape, std::vector<int64_t>({5}));
  EXPECT_EQ(SmallFile().substr((*tensors)[1].begin, 20), std::string(20, 'b'));
  EXPECT_EQ((*tensors)[3].begin, (*tensors)[3].end);
  // The order of keys in the header has no meaning.
  const auto swapped = Parse(FileOf(R"({"y":{"shape":[1],"dtype":"U8","data_offsets":[1,2]},)"
                                    R"("x":{"data_offsets":[0,1],"dtype":"U8","shape":[1]}}  )",
                                    2));
  ASSERT_TRUE(swapped.ok()) << ToString(swapped.status());
  EXPECT_EQ((*swapped)[0].name, "x");
}

TEST(Safetensors, EveryTruncationIsRefused) {
  for (size_t bytes = 0; bytes < SmallFile().size(); ++bytes) {
    const auto tensors = Parse(SmallFile().substr(0, bytes));
    ASSERT_FALSE(tensors.ok()) << bytes;
    EXPECT_EQ(tensors.status().code(), absl::StatusCode::kDataLoss) << bytes;
  }
}

TEST(Safetensors, EveryFlippedBitOfTheHeaderIsSeen) {
  const auto original = Parse(SmallFile());
  ASSERT_TRUE(original.ok());
  const size_t header_end = original->front().begin;
  const size_t text = SmallFile().find("format");
  const size_t text_end = SmallFile().find('}', text);
  int accepted = 0;
  for (size_t at = 0; at < header_end; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string file = SmallFile();
      file[at] = static_cast<char>(file[at] ^ (1 << bit));
      const auto tensors = Parse(file);
      if (!tensors.ok()) continue;
      // Only free text, or a name or dtype, which the checkpoint compares, may differ.
      ++accepted;
      if (at >= text && at < text_end) {
        EXPECT_TRUE(Same(*tensors, *original)) << at << "." << bit;
      } else {
        EXPECT_FALSE(Same(*tensors, *original)) << at << "." << bit;
      }
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(Safetensors, Refuses) {
  const std::pair<std::string, const char*> kCases[] = {
      {std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "the limit is 100000000"},
      {FileOf("", 0), "no JSON object"},
      {FileOf("  {}", 0), "no JSON object"},
      {FileOf("{}\n", 0), "padded with spaces"},
      {FileOf("[]", 0), "no JSON object"},
      {FileOf("{}", 3), "3 bytes after the last tensor"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":1})", 1), "twice"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1]}})", 1), "expected dtype, shape"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1],"x":1}})", 1), "x = 1 is not valid"},
      {FileOf(R"({"a":{"dtype":"U7","shape":[1],"data_offsets":[0,1]}})", 1), "U7"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), "shape = [-1]"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1), "shape = [1]"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1), "not a range"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1), "not a range"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,1]}})", 1), "takes 2"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1), "cut short"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2), "gap or overlap"},
      {FileOf(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
              R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
              3),
       "gap or overlap"},
      {FileOf(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0),
       "overflows"},
      {FileOf(R"({"__metadata__":{"a":1}})", 0), "object of strings"},
      {FileOf(R"({"__metadata__":[]})", 0), "object of strings"},
  };
  for (const auto& [file, says] : kCases) EXPECT_THAT(Refusal(file), HasSubstr(says));
}

}  // namespace
}  // namespace fathom
