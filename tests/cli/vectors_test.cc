#include "cli/verify/vectors.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace fathom::client {
namespace {

using nlohmann::ordered_json;

TEST(VectorsTest, CountsAndTellsDifferences) {
  std::vector<std::string> told;
  const auto counts = CheckVectors(
      "{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}", "v",
      [](const ordered_json& v) -> std::optional<std::string> {
        const int n = v.at("n");
        if (n == 3) return std::nullopt;
        return n == 2 ? "no" : "";
      },
      [&](const std::string& line) { told.push_back(line); });
  ASSERT_TRUE(counts.ok());
  EXPECT_EQ(counts->total, 2);
  EXPECT_EQ(counts->exact, 1);
  EXPECT_EQ(told, std::vector<std::string>{"v:3: no"});
}

TEST(VectorsTest, BrokenOrEmptyFilesAreRefused) {
  const auto check = [](const ordered_json& v) {
    return std::optional<std::string>(v.at("text").get<std::string>());
  };
  const auto tell = [](const std::string&) {};
  EXPECT_FALSE(CheckVectors("{", "v", check, tell).ok());
  EXPECT_FALSE(CheckVectors("{}", "v", check, tell).ok());
  EXPECT_FALSE(CheckVectors("", "v", check, tell).ok());
}

}  // namespace
}  // namespace fathom::client
