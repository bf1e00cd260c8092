// scheduler/tenant_file.h: reads the shares and limits of tenants from a YAML file
// (--tenant-limits; docs/OPERATIONS.md, "Tenants and priorities", has its format). The reader is
// strict: an unknown key, a key that is there twice, and a number outside of its range are errors,
// which name file, line, key, value and what is allowed. Thread: the owner's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "common/status.h"
#include "scheduler/core/tenant_limits.h"

namespace fathom::scheduler {

// `name` is the file in messages.
absl::StatusOr<TenantTable> ParseTenantTable(const std::string& text, const std::string& name);

class TenantFile {
 public:
  explicit TenantFile(std::string path) : path_(std::move(path)) {}

  // NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT.
  absl::StatusOr<TenantTable> Read();
  // The same if the file is another one than at the last Read or Poll, or was written since; else
  // nullopt. A file that is removed keeps its last content, since an editor may write it anew.
  std::optional<absl::StatusOr<TenantTable>> Poll();

 private:
  struct Stamp {
    int64_t device = 0, inode = 0, bytes = 0, written_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  std::optional<Stamp> Look() const;  // nullopt: there is none.

  const std::string path_;
  std::optional<Stamp> seen_;
};

}  // namespace fathom::scheduler
