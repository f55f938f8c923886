# The smallest Rails around the code of docs/publishers.md: a table, a controller and a route.
require "rails"
require "active_record/railtie"
require "action_controller/railtie"

ENV["DATABASE_URL"] = "sqlite3:shop.sqlite3"

class Shop < Rails::Application
  config.root = __dir__
  config.load_defaults "#{Rails::VERSION::MAJOR}.#{Rails::VERSION::MINOR}"
  config.eager_load = false
  config.secret_key_base = "0" * 64
  config.logger = Logger.new($stderr)
end

class ApplicationRecord < ActiveRecord::Base
  self.abstract_class = true
end

class OrdersController < ActionController::API
  def create = render(json: Order.create!(params.permit(:id, :item)), status: :created)
end

Shop.initialize!
Shop.routes.draw { resources :orders, only: :create }
ActiveRecord::Schema.define { create_table(:orders, id: :string) { |t| t.string :item } }
run Shop
