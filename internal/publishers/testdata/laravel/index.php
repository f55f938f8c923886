<?php

// The smallest Laravel around the code of docs/publishers.md, with Debian's package php-laravel-framework.

require 'Illuminate/autoload.php';
require 'GuzzleHttp/autoload.php';

spl_autoload_register(function ($class) {
    if (str_starts_with($class, 'App\\')) {
        require __DIR__.'/app/'.strtr(substr($class, 4), '\\', '/').'.php';
    }
});

foreach (['bootstrap/cache', 'storage/framework/views', 'resources/views'] as $folder) {
    is_dir($folder) || mkdir($folder, 0700, true);
}

$app = new Illuminate\Foundation\Application(__DIR__);
$app->singleton(Illuminate\Contracts\Http\Kernel::class, Illuminate\Foundation\Http\Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, Illuminate\Foundation\Exceptions\Handler::class);
$app->booted(function () {
    Illuminate\Support\Facades\Route::post('/orders', [App\Http\Controllers\OrderController::class, 'store']);
});
$app->make(Illuminate\Contracts\Http\Kernel::class)->handle(Illuminate\Http\Request::capture())->send();
