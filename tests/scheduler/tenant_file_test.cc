// The file of tenants: what it may say, what each mistake is answered with, and that a change of it
// is seen.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "scheduler/tenant_file.h"

namespace fathom::scheduler {
namespace {

TEST(TenantFile, SaysSharesAndLimits) {
  const auto table = ParseTenantTable(
      "token_costs: {prefill: 1, decode: 4}\n"
      "tenants:\n"
      "  research: {weight: 3}\n"
      "  batch:\n"
      "    running_max: 0\n"
      "    tokens_per_minute: 100000\n"
      "defaults: {weight: 2, running_max: 8, queued_max: 100, queued_tokens_max: 5}\n",
      "file");
  ASSERT_TRUE(table.ok()) << ToString(table.status());
  EXPECT_EQ(table->decode_cost, 4);
  // An entry has the defaults for what it does not say, wherever they are in the file.
  EXPECT_EQ(table->Of("research"), (TenantLimits{3, 8, 100, 5, 0}));
  EXPECT_EQ(table->Of("batch"), (TenantLimits{2, 0, 100, 5, 100'000}));
  EXPECT_EQ(table->Of("unknown"), (TenantLimits{2, 8, 100, 5, 0}));
  EXPECT_EQ(*ParseTenantTable("", "file"), TenantTable());
  EXPECT_EQ(*ParseTenantTable("# nothing yet\ntenants:\n", "file"), TenantTable());
}

TEST(TenantFile, NamesFileLineKeyValueAndWhatIsAllowed) {
  struct Case {
    std::string text;
    std::vector<std::string> says;
  };
  const Case cases[] = {
      {"tenants:\n  a:\n    weight: 0\n", {"file:3: tenants.a.weight", "'0'", "1 to 1000"}},
      {"defaults: {queued_max: -1}\n", {"file:1: defaults.queued_max", "'-1'", "0 to 16777216"}},
      {"defaults: {queued_max: 1.5}\n", {"defaults.queued_max", "'1.5' is not a whole number"}},
      {"defaults: {queued_max: 99999999999999999999}\n", {"defaults.queued_max", "0 to 16777216"}},
      {"defaults: {tokens_per_minute: [1]}\n", {"'a list or a map' is not a whole number"}},
      {"\ndefaults: {wieght: 2}\n",
       {"file:2: defaults.wieght: unknown key", "weight, running_max"}},
      {"tenant: {}\n", {"file:1: tenant: unknown key", "token_costs, defaults, tenants"}},
      {"tenants:\n  a: {}\n  a: {}\n", {"file:3: tenants.a: is given twice"}},
      {"tenants: 3\n", {"file:1: tenants: expected a map"}},
      {"- a\n", {"expected a map of token_costs"}},
      {"tenants: {'': {}}\n", {"a tenant's name has 1 to 256 bytes"}},
      {"token_costs: {decode: 101}\n", {"token_costs.decode", "'101'", "1 to 100"}},
      {"tenants: {a: {weight: 1\n", {"file: "}},
  };
  for (const Case& each : cases) {
    const auto table = ParseTenantTable(each.text, "file");
    ASSERT_FALSE(table.ok()) << each.text;
    EXPECT_TRUE(absl::IsInvalidArgument(table.status()));
    for (const std::string& what : each.says) {
      EXPECT_NE(Message(table.status()).find(what), std::string_view::npos)
          << what << "\n"
          << Message(table.status());
    }
  }
}

TEST(TenantFile, AChangeIsSeenOnceAndAMistakeIsTold) {
  const std::filesystem::path path =
      std::filesystem::path(testing::TempDir()) / "fathom-tenant-file-test.yaml";
  const auto write = [&](const std::string& text) { std::ofstream(path) << text; };
  write("defaults: {weight: 2}\n");
  TenantFile file(path);
  EXPECT_EQ((*file.Read()).defaults.weight, 2);
  EXPECT_FALSE(file.Poll().has_value());
  write("defaults: {weight: 30}\n");
  const auto changed = file.Poll();
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ((*changed)->defaults.weight, 30);
  EXPECT_FALSE(file.Poll().has_value());
  write("defaults: {weight: 30000}\n");
  const auto wrong = file.Poll();
  ASSERT_TRUE(wrong.has_value());
  EXPECT_TRUE(absl::IsInvalidArgument(wrong->status()));
  EXPECT_FALSE(file.Poll().has_value());  // Told once.
  std::filesystem::remove(path);
  EXPECT_FALSE(file.Poll().has_value());
  EXPECT_TRUE(absl::IsNotFound(TenantFile(path).Read().status()));
}

}  // namespace
}  // namespace fathom::scheduler
