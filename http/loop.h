// http/loop.h: how other threads reach the server's thread. The io_context belongs to the server;
// work that comes after the server's end is dropped. Only the sources of http/ use it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <functional>
#include <mutex>
#include <utility>

namespace fathom::http {

class Loop {
 public:
  // REQUIRES: `context` outlives the call of Close.
  explicit Loop(boost::asio::io_context* context) : context_(context) {}

  void Post(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    if (context_ != nullptr) boost::asio::post(*context_, std::move(work));
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    context_ = nullptr;
  }

 private:
  std::mutex mutex_;
  boost::asio::io_context* context_;
};

}  // namespace fathom::http
