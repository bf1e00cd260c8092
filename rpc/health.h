// rpc/health.h: grpc.health.v1 for rpc/server.h: Check, and Watch without a thread for each
// watcher. Thread: any; one mutex guards the watchers.
#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "rpc/call.h"

namespace fathom::rpc {

class Health {
 public:
  explicit Health(size_t watchers_max);
  ~Health();

  void AddService(const std::string& service) { services_.insert(service); }
  // Tells watchers too.
  void SetServing(bool serving);

  void Check(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request);
  // RESOURCE_EXHAUSTED beyond the limit of watchers.
  void Watch(const std::shared_ptr<Call>& call, const grpc::ByteBuffer& request);

 private:
  class Watcher;
  bool Knows(const std::string& service) const;

  const size_t watchers_max_;
  std::set<std::string> services_{""};

  std::mutex mutex_;  // Guards what follows.
  bool serving_ = false;
  std::list<std::shared_ptr<Watcher>> watchers_;
};

}  // namespace fathom::rpc
